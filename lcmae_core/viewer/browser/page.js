// The entry of the module: one figure, its state, and what the pointer and the keys do to it.

function render({ model, el }) {
  const root = node("div", "lcmae-browser", el);
  let scene = readScene(model.get("scene")), still = {}, drawn = null, cursor = null, pending = null, last = 0;
  const state = () => Object.fromEntries(NAMES.map((name) => [name, model.get(name)]));
  let lastPatch = state().query;

  const usable = (patch) => patch >= 0 && patch < scene.N && scene.token[patch] >= 0;
  const act = {
    set(changes) {
      for (const [name, value] of Object.entries(changes)) model.set(name, value);
      clearTimeout(pending); // the kernel hears at most ten changes a second while the pointer moves
      const wait = Math.max(0, 100 - (performance.now() - last));
      const tell = () => { last = performance.now(); model.save_changes(); };
      if (wait === 0 || !("query" in changes)) tell(); else pending = setTimeout(tell, wait);
    },
    patch: () => (usable(lastPatch) ? lastPatch : scene.keys[Math.floor(scene.K / 2)]),
    lock: () => act.set({ locked: model.get("locked") === null ? model.get("query") : null }),
    png() {
      const canvas = pictureOf(scene, state(), Math.max(700, width()), line.textContent);
      canvas.toBlob((blob) => download(blob, "attention.png"));
    },
    html: () => download(new Blob([pageOf(model, state())], { type: "text/html" }), "attention.html"),
  };
  const refresh = toolbar(root, model, act);
  const canvas = node("canvas", "lcmae-canvas", root, { tabindex: "0", role: "application",
    "aria-roledescription": "attention browser" });
  const told = node("div", "lcmae-told", root);
  const line = node("p", "lcmae-words", root);
  const help = node("p", "lcmae-help", root);
  help.textContent = "Click a patch in a picture or in a map; arrow keys move it, L locks it for comparison, Esc unlocks.";
  const live = node("div", "lcmae-live", root, { "aria-live": "polite", role: "status" });
  const width = () => Math.max(320, Math.floor(root.clientWidth || 1200));

  function draw() {
    const now = state();
    if (now.query >= 0) lastPatch = now.query;
    if (!now.paint) cursor = null; else if (cursor === null) cursor = Math.max(0, now.query);
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    drawn = paintOn(canvas, scene, now, width(), getComputedStyle(root).color, ratio, still, cursor);
    line.textContent = describe(scene, now, drawn.top);
    canvas.classList.toggle("lcmae-painting", now.paint);
  }
  function say() {
    const now = state(), locked = now.locked === null ? "" : `, locked ${placeOf(scene, now.locked)}`;
    live.textContent = `Query ${placeOf(scene, now.query)}${locked}`;
    canvas.setAttribute("aria-label", `Pictures and attention maps. Query ${placeOf(scene, now.query)}${locked}. ` +
      "Arrow keys move the query, L locks it for comparison, Escape unlocks." +
      (now.paint ? " Paint mode: Space hides or shows the patch under the cursor." : ""));
  }
  const update = () => { refresh(scene, state()); draw(); say(); };
  const fresh = () => { scene = readScene(model.get("scene")); told.textContent = ""; update(); };

  /** The patch at a pointer position, in a picture or in a map. */
  function at(event) {
    const box = canvas.getBoundingClientRect(), { plan } = drawn;
    const x = (event.clientX - box.left) * (width() / box.width), y = (event.clientY - box.top) * (plan.height / box.height);
    const find = (area) => {
      const col = Math.floor(((x - area.x) / area.w) * scene.C), row = Math.floor(((y - area.y) / area.h) * scene.R);
      return col >= 0 && row >= 0 && col < scene.C && row < scene.R ? row * scene.C + col : -1;
    };
    for (const area of plan.pictures) { const patch = find(area); if (patch >= 0) return { patch }; }
    for (const [b, block] of plan.blocks.entries()) {
      for (let m = 0; m < plan.cells; m++) {
        const patch = find({ ...block.at(m), w: plan.w, h: plan.h });
        if (patch >= 0) return { patch, map: m, block: b };
      }
    }
    return null;
  }
  function choose(patch) {
    if (!usable(patch)) {
      told.textContent = `${placeOf(scene, patch)}: the encoder never sees this patch, so it has no attention to show.`;
    } else if (patch !== model.get("query")) { told.textContent = ""; act.set({ query: patch }); }
  }
  const toggle = (patch) => { cursor = patch; draw(); model.send({ kind: "paint", patch }); };

  /** What one map gives to the patch under the pointer, in numbers. */
  function read(found) {
    const { values } = drawn.weights[found.block], k = scene.token[found.patch] - scene.P;
    if (k < 0) { told.textContent = `${placeOf(scene, found.patch)}: no token of this encoder`; return; }
    const weight = values[found.map * scene.K + k], each = model.get("head_mode") === "each";
    const layer = scene.layers[each ? Math.floor(found.map / scene.H) : found.map] + 1;
    const head = each ? `head ${scene.heads[found.map % scene.H] + 1}` : `${model.get("head_mode")} over heads`;
    told.textContent = `layer ${layer}, ${head}: weight on ${placeOf(scene, found.patch)} = ${number(weight)}, ` +
      `${(weight * scene.T).toFixed(1)} x uniform`;
  }
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    const found = at(event);
    if (!found) return;
    if (model.get("paint")) toggle(found.patch); else choose(found.patch);
  });
  canvas.addEventListener("pointermove", (event) => {
    const found = at(event);
    if (!found) { told.textContent = ""; return; }
    if (model.get("hover") && !model.get("paint") && usable(found.patch)) choose(found.patch);
    if (found.map !== undefined) read(found); else told.textContent = placeOf(scene, found.patch);
  });
  canvas.addEventListener("pointerleave", () => { told.textContent = ""; });

  /** One step, without wrapping round; hidden places that cannot be a query are stepped over. */
  function step([down, right], painting) {
    let from = painting ? cursor : model.get("query");
    if (from < 0) { choose(act.patch()); return; }
    for (;;) {
      const row = Math.floor(from / scene.C) + down, col = (from % scene.C) + right;
      if (row < 0 || col < 0 || row >= scene.R || col >= scene.C) return;
      from = row * scene.C + col;
      if (painting) { cursor = from; draw(); live.textContent = `Cursor ${placeOf(scene, from)}`; return; }
      if (usable(from)) { choose(from); return; }
    }
  }
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const painting = model.get("paint"), key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (STEPS[key]) step(STEPS[key], painting);
    else if (key === "l") act.lock();
    else if (key === "Escape") act.set({ locked: null });
    else if (painting && (key === " " || key === "Enter")) toggle(cursor);
    else return;
    event.preventDefault();
  });
  root.addEventListener("keydown", (event) => { // else "b" or "dd" would edit the notebook around us
    if (!event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey) event.stopPropagation();
  });

  const listeners = [["change:scene", fresh], ...NAMES.map((name) => [`change:${name}`, update])];
  for (const [name, run] of listeners) model.on(name, run);
  const sizes = new ResizeObserver(() => { if (drawn && Math.abs(width() - parseFloat(canvas.style.width)) > 1) draw(); });
  sizes.observe(root);
  const themes = new MutationObserver(() => draw()); // JupyterLab changes its theme by attributes of <body>
  themes.observe(document.body, { attributes: true });
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", draw);
  update();
  return () => {
    for (const [name, run] of listeners) model.off(name, run);
    sizes.disconnect(); themes.disconnect(); dark.removeEventListener("change", draw); clearTimeout(pending); root.remove();
  };
}

export default { render };

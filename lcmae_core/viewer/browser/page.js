// The entry of the module: one figure, its state, and what the pointer and the keys do to it.

function render({ model, el }) {
  const root = node("div", "lcmae-browser", el);
  const read = () => [model.get("scene"), ...(model.get("others") ?? [])].map(readScene);
  let scenes = read(), still = {}, drawn = null, cursor = null, pending = null, last = 0, stale = false, chosen = null;
  const state = () => effective(Object.fromEntries(NAMES.map((name) => [name, model.get(name)])));
  repair(model, scenes);
  let scene = scenes[model.get("subject")], lastPatch = state().query;

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
    lock() {
      if (model.get("against") === null) act.set({ locked: model.get("locked") === null ? model.get("query") : null });
    },
    comparable: () => scenes.every((s) => s.alike) || (model.get("strip")?.names?.length ?? 0) > 1,
    /** All heads, or the ordinary view again: with a kernel those of every layer, and then the chosen ones again. S_attn
     * is computed when it is first asked for. */
    overview(order) {
      const { parts, layers, heads } = model.get("panel") ?? {}, was = model.get("overview");
      act.set({ overview: order });
      if (parts && was === "off" && order !== "off" && (layers !== "all" || heads !== "all")) {
        chosen = { layers, heads }; act.set({ large: null });
        kernel.ask({ kind: "choose", changes: { layers: "all", heads: "all" } });
      } else if (order === "off" && chosen) {
        act.set({ large: null }); kernel.ask({ kind: "choose", changes: chosen }); chosen = null;
      }
      if (order === "similarity" && !scenes.every((s) => s.alike)) kernel.ask({ kind: "measure" });
    },
    /** From a tile of the overview to its head in the ordinary view. */
    goTo(index) { chosen = null; act.set({ overview: "off", head_mode: "each", large: index }); },
    enlarge: (index) => act.set({ large: index === model.get("large") ? null : index }),
    png() {
      const canvas = pictureOf(scenes, state(), Math.max(700, width()), line.textContent);
      canvas.toBlob((blob) => download(blob, "attention.png"));
    },
    html: () => download(new Blob([pageOf(model, state())], { type: "text/html" }), "attention.html"),
  };
  const problem = (line) => { message.textContent = line ?? ""; };
  const kernel = kernelOf(model, problem), open = senderOf(model, kernel, problem);
  const fromKernel = kernelBar(root, model, kernel.ask, open);
  dropZone(root, fromKernel ? open : () => problem(NO_KERNEL));
  const message = node("div", "lcmae-kernel-message", root, { role: "alert" });
  const refresh = toolbar(root, model, act);
  const canvas = node("canvas", "lcmae-canvas", root, { tabindex: "0", role: "application",
    "aria-roledescription": "attention browser" });
  const told = node("div", "lcmae-told", root, { hidden: "" });
  const line = node("p", "lcmae-words", root);
  const help = node("p", "lcmae-help", root);
  help.textContent = "Click a patch in a picture; arrow keys move it, L locks it for comparison, Esc unlocks. " +
    "Click a map to enlarge it (E; [ and ] go through them); patches in the large map can be clicked. " +
    "O shows all heads: click a tile, or Enter, to go to its head.";
  const live = node("div", "lcmae-live", root, { "aria-live": "polite", role: "status" });
  const width = () => Math.max(320, Math.floor(root.clientWidth || 1200));

  function draw() {
    const now = state();
    scene = scenes[now.subject];
    if (now.query >= 0) lastPatch = now.query;
    if (!now.paint) cursor = null; else if (cursor === null) cursor = Math.max(0, now.query);
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    drawn = paintOn(canvas, scenes, now, width(), getComputedStyle(root).color, ratio, still, cursor);
    line.textContent = describe(scene, now, drawn.top, now.against === null ? null : scenes[now.against], drawn.apart);
    canvas.classList.toggle("lcmae-painting", now.paint);
  }
  function say() {
    const now = state(), locked = now.locked === null ? "" : `, locked ${placeOf(scene, now.locked)}`;
    const { large, overview } = drawn.plan;
    const tile = !large ? "" : `. Enlarged: ${overview ? tileWords(drawn.plan.blocks[large.block], large.map, overview)
      : tileName(drawn.blocks[large.block].scene, large.map, now)}`;
    live.textContent = `Query ${placeOf(scene, now.query)}${locked}${tile}`;
    canvas.setAttribute("aria-label", `Pictures and attention maps. Query ${placeOf(scene, now.query)}${locked}. ` +
      "Arrow keys move the query, L locks it for comparison, Escape unlocks." +
      (overview ? ` Overview of ${drawn.plan.blocks[0].cells} heads: [ and ] go through the tiles, Enter goes to the head, O leaves.` : "") +
      (now.paint ? " Paint mode: Space hides or shows the patch under the cursor." : ""));
  }
  const update = () => { refresh(scenes, state()); fromKernel?.(); draw(); say(); };
  function fresh() { // scene, others and panel come together: read once
    if (stale) return;
    stale = true;
    queueMicrotask(() => { stale = false; scenes = read(); repair(model, scenes); tip(""); update(); });
  }

  /** The patch at a pointer position, in a picture or in a map. */
  function at(event) {
    const box = canvas.getBoundingClientRect(), { plan } = drawn;
    const x = (event.clientX - box.left) * (width() / box.width), y = (event.clientY - box.top) * (plan.height / box.height);
    const find = (area) => {
      const col = Math.floor(((x - area.x) / area.w) * scene.C), row = Math.floor(((y - area.y) / area.h) * scene.R);
      return col >= 0 && row >= 0 && col < scene.C && row < scene.R ? row * scene.C + col : -1;
    };
    for (const area of plan.pictures) { const patch = find(area); if (patch >= 0) return { patch }; }
    if (plan.large) {
      const patch = find(plan.large);
      if (patch >= 0) return { patch, map: plan.large.map, block: plan.large.block, enlarged: true };
    }
    for (const [b, block] of plan.blocks.entries()) {
      for (let m = 0; m < block.cells; m++) {
        const patch = find({ ...block.at(m), w: plan.w, h: plan.h });
        if (patch >= 0) return { patch, map: m, block: b };
      }
    }
    return null;
  }
  function choose(patch) {
    if (!usable(patch)) {
      tip(`${placeOf(scene, patch)}: the encoder never sees this patch, so it has no attention to show.`);
    } else if (patch !== model.get("query")) { tip(""); act.set({ query: patch }); }
  }
  const toggle = (patch) => { cursor = patch; draw(); kernel.ask({ kind: "paint", patch }); };

  /** Words beside the pointer. */
  function tip(words, event) {
    told.textContent = words;
    told.hidden = !words;
    if (!event) return;
    const box = root.getBoundingClientRect(), right = event.clientX - box.left > box.width / 2;
    told.style.top = `${event.clientY - box.top + 14}px`;
    told.style.left = right ? "auto" : `${event.clientX - box.left + 14}px`;
    told.style.right = right ? `${box.right - event.clientX + 14}px` : "auto";
  }

  /** What one map gives to the patch under the pointer, in numbers. */
  function valueOf(found) {
    const block = drawn.blocks[found.block], of = block.scene, { values } = drawn.weights[found.block];
    const tile = drawn.plan.overview ? tileWords(drawn.plan.blocks[found.block], found.map, drawn.plan.overview) : tileName(of, found.map, state());
    const k = of.token[found.patch] - of.P, where = `${tile}: `;
    if (k < 0) return `${placeOf(of, found.patch)}: no token of this encoder`;
    const weight = values[found.map * of.K + k];
    if (block.difference) return `${where}${weight < 0 ? "-" : "+"}${number(Math.abs(weight))} on ${placeOf(of, found.patch)}`;
    return `${where}weight on ${placeOf(of, found.patch)} = ${number(weight)}, ${(weight * of.T).toFixed(1)} x uniform`;
  }
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    const found = at(event);
    if (!found) return;
    if (found.map !== undefined && !found.enlarged && drawn.plan.overview) { act.goTo(found.block * 10000 + found.map); return; }
    if (found.map !== undefined && !found.enlarged) { act.enlarge(found.block * 10000 + found.map); return; }
    if (model.get("paint")) toggle(found.patch); else choose(found.patch);
    if (!usable(found.patch)) tip(told.textContent, event);
  });
  canvas.addEventListener("pointermove", (event) => {
    const found = at(event);
    if (!found) { tip(""); return; }
    if (model.get("hover") && !model.get("paint") && usable(found.patch)) choose(found.patch);
    tip(found.map !== undefined ? valueOf(found) : placeOf(scene, found.patch), event);
  });
  canvas.addEventListener("pointerleave", () => tip(""));

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
    else if (key === "Escape") leave();
    else if (key === "e") act.enlarge(model.get("large") ?? nextTile(1));
    else if (key === "o") act.overview(model.get("overview") === "off" ? "layers" : "off");
    else if (key === "Enter" && drawn.plan.overview && drawn.plan.large) act.goTo(model.get("large"));
    else if (key === "[" || key === "]") act.set({ large: nextTile(key === "]" ? 1 : -1) });
    else if (painting && (key === " " || key === "Enter")) toggle(cursor);
    else return;
    event.preventDefault();
  });
  /** Escape: from the enlarged map, else from the locked query, else from the overview. */
  function leave() {
    if (model.get("large") !== null) act.set({ large: null });
    else if (model.get("locked") !== null) act.set({ locked: null });
    else act.overview("off");
  }
  function nextTile(way) {
    const large = model.get("large"), block = large === null ? 0 : Math.floor(large / 10000);
    const { cells, maps } = drawn.plan.blocks[block] ?? drawn.plan.blocks[0];
    if (large === null) return maps ? maps[0] : 0;
    if (!maps) return block * 10000 + (large % 10000 + way + cells) % cells;
    return block * 10000 + maps[(maps.indexOf(large % 10000) + way + cells) % cells];
  }
  const unshield = shield(root);

  const listeners = [["change:scene", fresh], ["change:others", fresh], ["change:panel", update], ["change:strip", update], ...NAMES.map((name) => [`change:${name}`, update])];
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
    sizes.disconnect(); themes.disconnect(); dark.removeEventListener("change", draw); clearTimeout(pending); kernel.stop(); unshield(); root.remove();
  };
}

/** Keys without Ctrl, Alt, Meta or Shift stay in the figure, else "b" or "dd" would edit the notebook around it. JupyterLab
 * takes its shortcuts while the event bubbles; Notebook 7 before the figure sees it, unless the element that has the focus
 * bears this mark. */
function shield(root) {
  const plain = (event) => !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey, mark = "data-lm-suppress-shortcuts";
  const first = (event) => { if (event.target instanceof Element && root.contains(event.target)) event.target.toggleAttribute(mark, plain(event)); };
  window.addEventListener("keydown", first, true);
  root.addEventListener("keydown", (event) => { if (plain(event)) event.stopPropagation(); });
  return () => window.removeEventListener("keydown", first, true);
}

/** What an address or an older file may say wrongly: a place, a model or a mode that is not there. */
function repair(model, scenes) {
  const index = (name, otherwise) => {
    const value = model.get(name);
    if (value !== null && value !== undefined && !(Number.isInteger(value) && scenes[value])) model.set(name, otherwise);
  };
  index("subject", 0); index("against", null);
  const scene = scenes[model.get("subject") ?? 0];
  const usable = (q) => Number.isInteger(q) && (q < 0 ? -q <= scene.P : q < scene.N && scene.token[q] >= 0);
  if (!usable(model.get("query"))) model.set("query", scene.keys[Math.floor(scene.K / 2)]);
  if (model.get("locked") !== null && !usable(model.get("locked"))) model.set("locked", null);
  for (const { name, options } of CONTROLS) {
    if (!options.some(([value]) => value === model.get(name))) model.set(name, options[0][0]);
  }
  if (scenes.some((s) => !s.distance)) model.set("overview", "off"); // a file of an older version
  const several = (model.get("strip")?.names?.length ?? 0) > 1;
  if (model.get("overview") === "similarity" && !several && scenes.some((s) => !s.alike)) model.set("overview", "layers");
  if (model.get("head_mode") === "rollout" && scenes.some((s) => !s.rolled)) model.set("head_mode", "each");
  if (model.get("large") !== null && !(model.get("large") >= 0)) model.set("large", null);
}

export default { render };

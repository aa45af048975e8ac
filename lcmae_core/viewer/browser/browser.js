// The attention browser's page side: controls, keys, pointer. It follows draw.js in one module. Everything
// lives inside `el`: no ids, no globals, no document-level keys, so two browsers on one page do not meet.

const CONTROLS = [
  { name: "view", label: "Show as", options: [["overlay", "overlay"], ["heat", "heat map"]] },
  { name: "scale", label: "Colour scale", options: [["shared", "shared"], ["per map", "per map"]] },
  { name: "head_mode", label: "Heads", options: [["each", "each"], ["mean", "mean"], ["max", "max"]] },
];
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const NAMES = ["query", "locked", "view", "scale", "head_mode", "hover", "paint"];

function node(tag, cls, into, attributes = {}) {
  const made = document.createElement(tag);
  made.className = cls;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  into.append(made);
  return made;
}

/** Buttons and menus; returns what must be brought up to date when the state changes. */
function toolbar(root, model, act) {
  const bar = node("div", "lcmae-bar", root, { role: "toolbar", "aria-label": "How attention is shown" });
  const menu = (name, label, options) => {
    const wrap = node("label", "lcmae-control", bar);
    wrap.append(`${label} `);
    const select = node("select", `lcmae-${name}`, wrap, { "aria-label": label });
    for (const [value, words] of options) select.append(new Option(words, value));
    return select;
  };
  const button = (cls, words, label, run) => {
    const made = node("button", cls, bar, { type: "button", "aria-label": label, title: label });
    made.textContent = words; made.addEventListener("click", run);
    return made;
  };
  const menus = CONTROLS.map(({ name, label, options }) => {
    const select = menu(name, label, options);
    select.addEventListener("change", () => act.set({ [name]: select.value }));
    return [name, select];
  });
  const query = menu("query", "Query", []);
  query.addEventListener("change", () => act.set({ query: query.value === "patch" ? act.patch() : +query.value }));
  const wrap = node("label", "lcmae-control", bar), hover = node("input", "lcmae-hover", wrap, { type: "checkbox" });
  wrap.append(" follow the pointer");
  hover.addEventListener("change", () => act.set({ hover: hover.checked }));
  const lock = button("lcmae-lock", "Lock (L)", "Lock this query and compare it with another (L; Esc unlocks)", act.lock);
  button("lcmae-png", "Save PNG", "Save what is shown as a PNG picture", act.png);
  button("lcmae-html", "Save HTML", "Save as one HTML file that works without a network", act.html);
  return (scene, state) => {
    for (const [name, select] of menus) select.value = state[name];
    hover.checked = state.hover;
    query.parentElement.hidden = !scene.P;
    query.replaceChildren(new Option("patch", "patch"), ...scene.prefix.map((name, i) => new Option(name, -1 - i)));
    query.value = state.query < 0 ? state.query : "patch";
    const locked = state.locked !== null;
    lock.textContent = locked ? "Unlock (Esc)" : "Lock (L)"; lock.setAttribute("aria-pressed", locked);
  };
}

function placeOf(scene, query) {
  if (query < 0) return scene.prefix[-query - 1];
  const state = scene.hidden ? (scene.hidden[query] ? " (hidden)" : " (visible)") : "";
  return `row ${Math.floor(query / scene.C) + 1}, column ${(query % scene.C) + 1}${state}`;
}

/** The line under the figure; browser_words.py says the same in Python. */
function describe(scene, state, top) {
  const { words } = scene, each = state.head_mode === "each";
  const heads = each ? words.heads : `${state.head_mode} over ${words.heads}`;
  const locked = state.locked === null ? "" : `, compared with the locked ${placeOf(scene, state.locked)}`;
  const sums = state.head_mode === "max"
    ? "the greatest of the heads, so a row may sum to more than 1" : "a row sums to 1";
  const colours = state.scale === "shared"
    ? `one scale for all maps, 0 to ${number(top)}` : "a scale for each map, 0 to its own maximum";
  const view = state.view === "overlay" ? "drawn over the photograph" : "as heat maps";
  const layers = words.layers[0].toUpperCase() + words.layers.slice(1);
  return `${words.model}, ${words.image}: ${words.part}. ${layers}, ${heads}. ` +
    `Query: ${placeOf(scene, state.query)}${locked}. Softmax attention from the query to every token ` +
    `(${words.tokens}; ${sums}; uniform is 1/${scene.T} = ${number(1 / scene.T)}), ${view}. Colours: ${colours}. ` +
    "Layers, heads, rows and columns count from 1 here, from 0 in Python.";
}

/** One self-contained file: the same template, module, styles and state that Python's save_html fills in. */
function pageOf(model, state) {
  const sent = model.get("scene");
  const base64 = (value) => {
    const raw = bytesOf(value); let binary = "";
    for (let i = 0; i < raw.length; i += 32768) binary += String.fromCharCode(...raw.subarray(i, i + 32768));
    return btoa(binary);
  };
  const pictures = sent.pictures.map((p) => ({ ...p, rgb: base64(p.rgb) }));
  const scene = { ...sent, maps: base64(sent.maps), lut: base64(sent.lut), pictures };
  const kept = { ...state, paint: false, scene, page: model.get("page"), _esm: model.get("_esm"),
    _css: model.get("_css") };
  const parts = { TITLE: `Attention browser: ${sent.words.model}`.replace(/[&<>]/g, " "), CSS: kept._css,
    STATE: JSON.stringify(kept).replace(/</g, "\\u003c"), ESM: kept._esm.replace(/^export default/m, "const browser =") };
  return model.get("page").replace(/__(TITLE|CSS|STATE|ESM)__/g, (_, name) => parts[name]);
}

function download(blob, name) {
  const link = document.createElement("a"), url = URL.createObjectURL(blob);
  link.href = url; link.download = name; link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** The figure with its words under it, black on white whatever the theme. */
function pictureOf(scene, state, width, words) {
  const ratio = 2, font = "13px system-ui, sans-serif";
  const figure = paintOn(blank(1, 1), scene, state, width, "#111", ratio), pen = figure.canvas.getContext("2d");
  pen.font = font;
  const lines = [""];
  for (const word of words.split(" ")) {
    const tried = `${lines.at(-1)} ${word}`.trim();
    if (pen.measureText(tried).width > width - 4) lines.push(word); else lines[lines.length - 1] = tried;
  }
  const height = figure.plan.height + 16 + 18 * lines.length, canvas = blank((width + 24) * ratio, (height + 24) * ratio);
  const c = canvas.getContext("2d");
  c.fillStyle = "#fff"; c.fillRect(0, 0, canvas.width, canvas.height); c.drawImage(figure.canvas, 12 * ratio, 12 * ratio);
  c.scale(ratio, ratio);
  c.font = font; c.fillStyle = "#111";
  lines.forEach((line, i) => c.fillText(line, 12, figure.plan.height + 30 + 18 * i));
  return canvas;
}

/** Draw everything on `canvas`; `still` keeps the part that no query changes from one call to the next. */
function paintOn(canvas, scene, state, width, ink, ratio, still = {}, cursor = null) {
  const queries = state.locked === null ? [state.query] : [state.query, state.locked];
  const key = [width, ratio, ink, state.view, state.head_mode, queries.length].join();
  if (still.scene !== scene || still.key !== key) {
    const plan = layoutOf(scene, width, state.head_mode, queries.length), layer = blank(width * ratio, plan.height * ratio);
    const pen = layer.getContext("2d");
    pen.scale(ratio, ratio); drawStill(pen, scene, plan, state, ink);
    Object.assign(still, { scene, key, plan, layer });
    canvas.width = layer.width; canvas.height = layer.height;
    canvas.style.width = `${width}px`; canvas.style.height = `${plan.height}px`;
  }
  const { plan, layer } = still, c = canvas.getContext("2d");
  c.setTransform(1, 0, 0, 1, 0, 0); c.clearRect(0, 0, canvas.width, canvas.height); c.drawImage(layer, 0, 0);
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  const weights = queries.map((query) => weightsOf(scene, query, state.head_mode));
  const top = weights.reduce((most, { top: tops }) => tops.reduce((a, b) => Math.max(a, b), most), 0);
  const shared = state.scale === "shared" ? top : null;
  drawBar(c, scene, plan, shared, ink);
  const marks = [[QUERY, [], "query"], [LOCKED, [4, 3], "locked"]];
  queries.forEach((query, b) => {
    const block = plan.blocks[b], [colour, dash, word] = marks[b], box = { w: plan.w, h: plan.h };
    drawMaps(c, scene, plan, block, weights[b], shared, state, ink);
    outline(c, [[block.x + 1, block.y + 2, 11, 11]], colour, dash, 2);
    text(c, `${word}: ${placeOf(scene, query)}`, block.x + 20, block.y + 12, 12.5, ink, "left", plan.headRoom);
    if (query < 0) return;
    const small = plan.w / scene.C < 6; // too few pixels for dashes
    outline(c, Array.from({ length: plan.cells }, (_, m) => cell(scene, { ...block.at(m), ...box }, query)), colour,
      small ? [] : dash, small ? 1 : 1.6);
  });
  queries.map((query, b) => [query, b]).reverse().forEach(([query, b]) => {
    if (query >= 0) outline(c, [cell(scene, plan.pictures[0], query)], marks[b][0], marks[b][1], 2.5);
  });
  if (cursor !== null) { // inside the outline of the query, which is often the same patch
    const inner = ([x, y, w, h]) => [x + 4, y + 4, Math.max(1, w - 8), Math.max(1, h - 8)];
    outline(c, plan.pictures.map((box) => inner(cell(scene, box, cursor))), "#fff", [2, 2], 1.5);
  }
  return { canvas, plan, weights, top };
}

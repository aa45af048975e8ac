// The attention browser's page side: the toolbar, and what redraws when the state changes. It follows draw.js in
// one module. Everything lives inside `el` but for one listener of keys (`shield`), which looks at those of `el` alone:
// no ids, no globals, so two browsers on one page do not meet.

const CONTROLS = [
  { name: "overview", label: "Overview of heads", options: ORDERS },
  { name: "view", label: "Show as", options: [["overlay", "overlay"], ["heat", "heat map"]] },
  { name: "scale", label: "Colour scale", options: [["shared", "shared"], ["per map", "per map"]] },
  { name: "head_mode", label: "Maps",
    options: [["each", "each head"], ["mean", "mean over heads"], ["max", "max over heads"], ["rollout", "rollout of layers"]] },
];
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const NAMES = ["query", "locked", "view", "scale", "head_mode", "overview", "hover", "paint", "subject", "against", "large"];

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
    select.addEventListener("change", () => (name === "overview" ? act.overview(select.value) : act.set({ [name]: select.value })));
    return [name, select];
  });
  const query = menu("query", "Query", []);
  query.addEventListener("change", () => act.set({ query: query.value === "patch" ? act.patch() : +query.value }));
  const wrap = node("label", "lcmae-control", bar), hover = node("input", "lcmae-hover", wrap, { type: "checkbox" });
  wrap.append(" follow the pointer");
  hover.addEventListener("change", () => act.set({ hover: hover.checked }));
  const lock = button("lcmae-lock", "Lock (L)", "Lock this query and compare it with another (L; Esc unlocks)", act.lock);
  const models = modelMenus(menu, bar, act);
  button("lcmae-png", "Save PNG", "Save what is shown as a PNG picture", act.png);
  button("lcmae-html", "Save HTML", "Save as one HTML file that works without a network", act.html);
  return (scenes, state) => {
    const scene = scenes[state.subject];
    for (const [name, select] of menus) {
      if (name === "head_mode") select.lastElementChild.disabled = scenes.some((s) => !s.rolled);
      if (name === "overview") select.lastElementChild.disabled = !act.comparable();
      if (name === "head_mode" || name === "scale") select.disabled = state.overview !== "off";
      select.value = state[name];
    }
    models(scenes, state);
    lock.disabled = state.against !== null;
    hover.checked = state.hover;
    query.parentElement.hidden = !scene.P;
    query.replaceChildren(new Option("patch", "patch"), ...scene.prefix.map((name, i) => new Option(name, -1 - i)));
    query.value = state.query < 0 ? state.query : "patch";
    const locked = state.locked !== null;
    lock.textContent = locked ? "Unlock (Esc)" : "Lock (L)"; lock.setAttribute("aria-pressed", locked);
  };
}

/** Which model is shown, and which beside it; of the kept steps of a run the first is a slider. */
function modelMenus(menu, bar, act) {
  const shown = menu("subject", "Model", []), beside = menu("against", "Beside it", []);
  const wrap = node("label", "lcmae-control", bar);
  wrap.append("Step ");
  const slider = node("input", "lcmae-step", wrap, { type: "range", min: "0", "aria-label": "Kept step" });
  const named = node("output", "lcmae-stepname", wrap);
  shown.addEventListener("change", () => act.set({ subject: +shown.value }));
  slider.addEventListener("input", () => act.set({ subject: +slider.value }));
  beside.addEventListener("change", () => act.set({ against: beside.value === "" ? null : +beside.value }));
  return (scenes, state) => {
    const titles = scenes.map((s) => s.words.model), steps = titles.length > 2 && titles.slice(1).every((t) => t.startsWith("step "));
    for (const [select, first] of [[shown, []], [beside, [new Option("nothing", "")]]]) {
      select.replaceChildren(...first, ...titles.map((title, i) => new Option(title, i)));
    }
    shown.parentElement.hidden = titles.length < 2 || steps; beside.parentElement.hidden = titles.length < 2;
    wrap.hidden = !steps;
    slider.max = titles.length - 1; slider.value = state.subject; named.textContent = titles[state.subject];
    slider.setAttribute("aria-valuetext", titles[state.subject]);
    shown.value = state.subject; beside.value = state.against ?? "";
  };
}

function placeOf(scene, query) {
  if (query < 0) return scene.prefix[-query - 1];
  const state = scene.hidden ? (scene.hidden[query] ? " (hidden)" : " (visible)") : "";
  return `row ${Math.floor(query / scene.C) + 1}, column ${(query % scene.C) + 1}${state}`;
}

/** The line under the figure; words.py says the same in Python. `apart` ends the scale of the differences. */
function describe(scene, state, top, other = null, apart = null) {
  const { words } = scene, mode = state.head_mode;
  const heads = mode === "each" ? words.heads : mode === "rollout"
    ? "attention rollout from the first layer on (mean over all heads, half of it the residual path)"
    : `${mode} over ${words.heads}`;
  const locked = state.locked === null || other ? "" : `, compared with the locked ${placeOf(scene, state.locked)}`;
  const sums = mode === "rollout" ? "what can have flowed, without values and MLPs; a row sums to 1" : mode === "max"
    ? "the greatest of the heads, so a row may sum to more than 1" : "a row sums to 1";
  let colours = state.scale === "shared"
    ? `one scale for all maps, 0 to ${number(top)}` : "a scale for each map, 0 to its own maximum";
  if (other) {
    colours += apart === null ? "; no difference is drawn, for the layers or heads are not the same"
      : `; differences from ${number(apart)} less (blue) to ${number(apart)} more (red) in ${other.words.model}`;
  }
  const view = state.view === "overlay" ? "drawn over the photograph" : "as heat maps";
  const layers = words.layers[0].toUpperCase() + words.layers.slice(1);
  return `${words.model}${other ? ` beside ${other.words.model}` : ""}, ${words.image}: ${words.part}. ${layers}, ${heads}${describeOverview(state.overview, words, other)}. ` +
    `Query: ${placeOf(scene, state.query)}${locked}. Softmax attention from the query to every token ` +
    `(${words.tokens}; ${sums}; uniform is 1/${scene.T} = ${number(1 / scene.T)}), ${view}. Colours: ${colours}. ` +
    "Layers, heads, rows and columns count from 1 here, from 0 in Python.";
}

/** One self-contained file: the same template, module, styles and state that Python's save_html fills in. */
function pageOf(model, state) {
  const first = model.get("scene");
  const base64 = (value) => {
    const raw = bytesOf(value); let binary = "";
    for (let i = 0; i < raw.length; i += 32768) binary += String.fromCharCode(...raw.subarray(i, i + 32768));
    return btoa(binary);
  };
  const plain = (sent) => ({ ...sent, maps: base64(sent.maps), lut: base64(sent.lut), signed: base64(sent.signed),
    rollout: sent.rollout ? base64(sent.rollout) : null, pictures: sent.pictures.map((p) => ({ ...p, rgb: base64(p.rgb) })) });
  const others = model.get("others").map(plain);
  const kept = { ...state, paint: false, scene: plain(first), others, panel: {}, strip: {}, page: model.get("page"), _esm: model.get("_esm"),
    _css: model.get("_css") };
  const parts = { TITLE: `Attention browser: ${first.words.model}`.replace(/[&<>]/g, " "), CSS: kept._css,
    STATE: JSON.stringify(kept).replace(/</g, "\\u003c"), ESM: kept._esm.replace(/^export default/m, "const browser =") };
  return model.get("page").replace(/__(TITLE|CSS|STATE|ESM)__/g, (_, name) => parts[name]);
}

function download(blob, name) {
  const link = document.createElement("a"), url = URL.createObjectURL(blob);
  link.href = url; link.download = name; link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** The figure with its words under it, black on white whatever the theme. */
function pictureOf(scenes, state, width, words) {
  const ratio = 2, font = "13px system-ui, sans-serif";
  const figure = paintOn(blank(1, 1), scenes, state, width, "#111", ratio), pen = figure.canvas.getContext("2d");
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
function paintOn(canvas, scenes, state, width, ink, ratio, still = {}, cursor = null) {
  const blocks = blocksOf(scenes, state);
  const key = [width, ratio, ink, state.view, state.head_mode, state.subject, state.against, state.large, state.overview, blocks.length].join();
  if (still.scenes !== scenes || still.key !== key) prepare(canvas, scenes, state, width, ink, ratio, still, blocks, key);
  const { plan, layer, front } = still, c = canvas.getContext("2d");
  c.setTransform(1, 0, 0, 1, 0, 0); c.clearRect(0, 0, canvas.width, canvas.height); c.drawImage(layer, 0, 0);
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  const weights = [];
  for (const b of blocks) {
    weights.push(b.difference ? differenceOf(weights[0], weights[1]) : weightsOf(b.scene, b.query, state.head_mode));
  }
  const most = (signed) => weights.filter((w) => !!w.signed === signed)
    .reduce((found, { top: tops }) => tops.reduce((a, b) => Math.max(a, b), found), 0);
  const top = most(false), apart = blocks.at(-1).difference ? most(true) : null, shared = state.scale === "shared" ? top : null;
  drawBar(c, front, plan, shared, ink);
  blocks.forEach((b, i) => drawBlock(c, b, plan, plan.blocks[i], weights[i], b.difference ? apart : shared, state, ink));
  drawMarks(c, blocks, plan, front, cursor);
  return { canvas, plan, weights, top, apart, blocks };
}

function prepare(canvas, scenes, state, width, ink, ratio, still, blocks, key) {
  const front = frontOf(scenes, state);
  const plan = layoutOf(front, width, state.head_mode, blocks.length, blocks.map((b) => b.scene), state.large,
    state.overview === "off" ? null : { order: state.overview, blocks });
  const layer = blank(width * ratio, plan.height * ratio), pen = layer.getContext("2d");
  pen.scale(ratio, ratio); drawStill(pen, front, plan, state, ink);
  Object.assign(still, { scenes, key, plan, layer, front });
  canvas.width = layer.width; canvas.height = layer.height;
  canvas.style.width = `${width}px`; canvas.style.height = `${plan.height}px`;
}

const MARKS = [[QUERY, []], [LOCKED, [4, 3]]];

/** The maps of a block under their heading, and the query marked on each. */
function drawBlock(c, b, plan, block, weights, top, state, ink) {
  const [colour, dash] = MARKS[b.mark], { scene, query } = b;
  drawMaps(c, scene, plan, block, weights, top, state, ink);
  if (b.difference) {
    for (let i = 0; i < 12; i++) {
      const v = Math.round((i / 11) * 255);
      c.fillStyle = `rgb(${scene.signed[3 * v]},${scene.signed[3 * v + 1]},${scene.signed[3 * v + 2]})`;
      c.fillRect(block.x + i, block.y + 2, 1, 11);
    }
  } else outline(c, [[block.x + 1, block.y + 2, 11, 11]], colour, dash, 2);
  const ends = b.difference ? `: -${number(top)} blue, +${number(top)} red` : "";
  text(c, b.title + (top === null ? "" : ends), block.x + 20, block.y + 12, 12.5, ink, "left", plan.headRoom);
  const large = plan.large?.block === block.index ? plan.large : null;
  if (large) text(c, tileName(scene, large.map, state), large.x, large.y - 5, 12, ink, "left", plan.barRoom);
  if (query < 0) return;
  const box = { w: plan.w, h: plan.h }, small = plan.w / scene.C < 6; // too few pixels for dashes
  outline(c, Array.from({ length: block.cells }, (_, m) => cell(scene, { ...block.at(m), ...box }, query)), colour,
    small ? [] : dash, small ? 1 : 1.6);
  if (large) {
    outline(c, [cell(scene, large, query)], colour, dash, 2.5);
    outline(c, [{ ...block.at(large.map), ...box }].map((at) => [at.x - 1, at.y - 1, at.w + 2, at.h + 2]), "#fff", [], 1.5);
  }
}

function tileName(scene, map, state) {
  const each = state.head_mode === "each";
  return `layer ${scene.layers[each ? Math.floor(map / scene.H) : map] + 1}, ` +
    (each ? `head ${scene.heads[map % scene.H] + 1}` : state.head_mode === "rollout" ? "rollout" : `${state.head_mode} over heads`);
}

/** The queries on every picture, and the cursor of paint mode inside the outline of the query. */
function drawMarks(c, blocks, plan, front, cursor) {
  const marked = new Map(blocks.map((b) => [b.mark, b.query]));
  for (const [mark, query] of [...marked].reverse()) {
    if (query >= 0) outline(c, plan.pictures.map((box) => cell(front, box, query)), ...MARKS[mark], 2.5);
  }
  if (cursor === null) return;
  const inner = ([x, y, w, h]) => [x + 4, y + 4, Math.max(1, w - 8), Math.max(1, h - 8)];
  outline(c, plan.pictures.map((box) => inner(cell(front, box, cursor))), "#fff", [2, 2], 1.5);
}

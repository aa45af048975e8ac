// What the browser draws: bytes to weights, weights to colours, a layout for any width, one canvas.
// Letters: L layers, H heads, T tokens, P prefix tokens, K patches among the tokens, N patches.

const QUERY = "#ff5a1f", LOCKED = "#ff8df0", PREFIX = "#e69f00";
const GAP = 5, ROW_LABEL = 58, COLUMN_LABEL = 17, HEADING = 20, MAX_TILE = 150, MIN_SIDE_BY_SIDE = 58;

/** Bytes from the kernel (DataView) or from an exported page (base64). */
function bytesOf(sent) {
  if (typeof sent === "string") return Uint8Array.from(atob(sent), (c) => c.charCodeAt(0));
  return new Uint8Array(sent.buffer, sent.byteOffset, sent.byteLength);
}

/** Maps as typed arrays: low, step (L,H,T), own (L,H,T,P) for the prefix, levels (L,H,T,K). */
function rowsOf(sent, L, H, T, P, K) {
  const raw = bytesOf(sent).slice(); // a copy starts at 0, as float32 needs
  const floats = (from, count) => new Float32Array(raw.buffer, 4 * from, count), rows = L * H * T;
  return { H, low: floats(0, rows), step: floats(rows, rows), own: floats(2 * rows, rows * P),
    levels: raw.subarray(4 * rows * (2 + P)) };
}

/** The scene of the kernel with typed arrays, and pictures as canvases. */
function readScene(sent) {
  const L = sent.layers.length, H = sent.heads.length, P = sent.prefix.length, K = sent.keys.length, T = P + K;
  const [R, C] = sent.grid;
  const token = new Int32Array(R * C).fill(-1);
  sent.keys.forEach((patch, k) => { token[patch] = P + k; });
  const lut = bytesOf(sent.lut);
  const pictures = sent.pictures.map((p) => ({ ...p, canvas: picture(bytesOf(p.rgb), p.width, p.height) }));
  const rolled = sent.rollout ? rowsOf(sent.rollout, L, 1, T, P, K) : null;
  return { ...sent, L, P, K, T, R, C, N: R * C, token, lut, signed: bytesOf(sent.signed), pictures, rolled,
    ...rowsOf(sent.maps, L, H, T, P, K) };
}

function blank(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width)); canvas.height = Math.max(1, Math.round(height));
  return canvas;
}

function picture(rgb, width, height) {
  const canvas = blank(width, height), data = new ImageData(width, height);
  const out = new Uint32Array(data.data.buffer);
  for (let i = 0, j = 0; i < out.length; i++, j += 3) {
    out[i] = ((255 << 24) | (rgb[j + 2] << 16) | (rgb[j + 1] << 8) | rgb[j]) >>> 0;
  }
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas;
}

/** Weights of one query: M maps of K patches, what each gives to the prefix, and each map's greatest weight. */
function weightsOf(scene, query, mode) {
  const { L, T, P, K } = scene, { H, low, step, own, levels } = mode === "rollout" ? scene.rolled : scene;
  const t = query < 0 ? -query - 1 : scene.token[query], M = mode === "each" ? L * H : L;
  const values = new Float32Array(M * K), prefix = new Float32Array(M), top = new Float32Array(M);
  if (query < -P) return { values, prefix, top, M }; // another model's register: no such token here
  for (let map = 0; map < L * H; map++) {
    const row = map * T + t, into = mode === "each" ? map : Math.floor(map / H);
    const a = low[row], b = step[row], from = row * K, to = into * K;
    let own_sum = 0;
    for (let p = 0; p < P; p++) own_sum += own[row * P + p];
    if (mode === "max") {
      for (let k = 0; k < K; k++) values[to + k] = Math.max(values[to + k], a + b * levels[from + k]);
      prefix[into] = Math.max(prefix[into], own_sum);
    } else {
      const share = mode === "mean" ? 1 / H : 1;
      for (let k = 0; k < K; k++) values[to + k] += share * (a + b * levels[from + k]);
      prefix[into] += share * own_sum;
    }
  }
  for (let m = 0; m < M; m++) for (let k = 0, i = m * K; k < K; k++, i++) if (values[i] > top[m]) top[m] = values[i];
  return { values, prefix, top, M };
}

/** Whether the maps of two scenes stand for the same layers, heads and patches. */
function comparable(a, b, mode) {
  return a.L === b.L && (mode !== "each" || a.H === b.H) && a.K === b.K;
}

/** What the second gives more than the first: weights that may be negative, and each map's greatest change. */
function differenceOf(a, b) {
  const minus = (x, y) => x.map((value, i) => value - y[i]), values = minus(b.values, a.values), K = values.length / a.M;
  const top = new Float32Array(a.M);
  for (let i = 0; i < values.length; i++) top[Math.floor(i / K)] = Math.max(top[Math.floor(i / K)], Math.abs(values[i]));
  return { values, prefix: minus(b.prefix, a.prefix), top, M: a.M, signed: true };
}

/** The tile under the weights: a grey photograph, or nothing, with hatched places where no token is. */
function backdrop(scene, w, h, overlay) {
  const canvas = blank(w, h), c = canvas.getContext("2d");
  if (overlay) {
    c.filter = "grayscale(1)"; c.imageSmoothingQuality = "high";
    c.drawImage(scene.pictures[0].canvas, 0, 0, w, h); c.filter = "none";
  }
  if (!scene.blind) return canvas;
  c.beginPath();
  for (let n = 0; n < scene.N; n++) if (scene.token[n] < 0) c.rect(...cell(scene, { x: 0, y: 0, w, h }, n));
  c.fillStyle = "#8a8a8a"; c.fill(); c.save(); c.clip();
  c.strokeStyle = "#c4c4c4"; c.lineWidth = 1; c.beginPath();
  for (let i = -h; i < w; i += 4) { c.moveTo(i, h); c.lineTo(i + h, 0); }
  c.stroke(); c.restore();
  return canvas;
}

/** x, y, width, height of a patch inside a box. */
function cell(scene, box, patch) {
  const w = box.w / scene.C, h = box.h / scene.R;
  return [box.x + (patch % scene.C) * w, box.y + Math.floor(patch / scene.C) * h, w, h];
}

/** The outline of a patch, cased in black; locked ones are dashed, so that colour is not the only difference. */
function outline(c, boxes, colour, dash, width = 2) {
  for (const [ink, line, gaps] of [["#000", width + 2, []], [colour, width, dash]]) {
    c.strokeStyle = ink; c.lineWidth = line; c.setLineDash(gaps); c.beginPath();
    for (const box of boxes) c.rect(...box);
    c.stroke();
  }
  c.setLineDash([]);
}

function text(c, words, x, y, size, colour, align = "left", room) {
  c.font = `${size}px system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif`;
  c.fillStyle = colour; c.textAlign = align; c.textBaseline = "alphabetic";
  if (room === undefined) c.fillText(words, x, y); else c.fillText(words, x, y, room);
}

/** What no query changes: pictures, titles, row and column labels, the photograph under each map. */
function drawStill(c, scene, plan, state, ink) {
  plan.pictures.forEach((box, i) => {
    const p = scene.pictures[i];
    text(c, p.title, box.x, box.y - 5, 12, ink, "left", box.w);
    c.imageSmoothingQuality = "high"; c.drawImage(p.canvas, box.x, box.y, box.w, box.h);
    p.notes.forEach((note, k) => text(c, note, box.x, box.y + box.h + 13 + 13 * k, 10.5, ink, "left", box.w));
  });
  drawBarStill(c, scene, plan, state, ink);
  const under = backdrop(scene, plan.w, plan.h, state.view === "overlay");
  for (const { scene, ...block } of plan.blocks) {
    for (let m = 0; m < block.cells; m++) { const at = block.at(m); c.drawImage(under, at.x, at.y); }
    if (plan.overview) { drawTileNames(c, { ...block, scene }, plan, ink); continue; }
    if (plan.flow) {
      for (let m = 0; m < block.cells; m++) {
        const at = block.at(m);
        text(c, `layer ${scene.layers[m] + 1}`, at.x + plan.w / 2, at.y - plan.strip - 4, 11, ink, "center", plan.w);
      }
      continue;
    }
    for (let h = 0; h < scene.H; h++) {
      const at = block.at(h), words = `${plan.w >= 44 ? "head " : ""}${scene.heads[h] + 1}`;
      text(c, words, at.x + plan.w / 2, at.y - plan.strip - 5, 11, ink, "center", plan.w);
    }
    if (plan.w < 44) text(c, "head", block.x, block.at(0).y - plan.strip - 5, 11, ink);
    for (let l = 0; l < scene.L; l++) {
      const at = block.at(l * scene.H);
      text(c, `layer ${scene.layers[l] + 1}`, at.x - 8, at.y + plan.h / 2 + 4, 11, ink, "right");
    }
  }
}

/** One block of maps for one query, through an image of one pixel a patch. */
function drawMaps(c, scene, plan, block, weights, shared, state, ink) {
  const { C, R, K, P } = scene, overlay = state.view === "overlay", signed = weights.signed ?? false;
  const lut = signed ? scene.signed : scene.lut;
  const tile = blank(C, R * weights.M), small = tile.getContext("2d");
  const image = small.createImageData(C, R * weights.M), out = new Uint32Array(image.data.buffer);
  const paint = new Uint32Array(256);
  for (let v = 0; v < 256; v++) {
    const part = signed ? Math.abs(2 * v - 255) / 255 : v / 255;
    paint[v] = (((overlay ? 70 + Math.round(part * 175) : 255) << 24) |
      (lut[3 * v + 2] << 16) | (lut[3 * v + 1] << 8) | lut[3 * v]) >>> 0;
  }
  for (let m = 0; m < weights.M; m++) {
    const top = shared ?? weights.top[m], scale = top > 0 ? (signed ? 127.5 : 255) / top : 0, zero = signed ? 127.5 : 0;
    for (let k = 0; k < K; k++) {
      out[m * C * R + scene.keys[k]] = paint[Math.max(0, Math.min(255, Math.round(zero + weights.values[m * K + k] * scale)))];
    }
  }
  small.putImageData(image, 0, 0);
  c.imageSmoothingEnabled = false;
  for (let m = 0; m < weights.M; m++) {
    const at = block.at(m);
    c.drawImage(tile, 0, m * R, C, R, at.x, at.y, plan.w, plan.h);
  }
  if (plan.large && plan.large.block === block.index) {
    const { x, y, w, h, map } = plan.large;
    c.drawImage(backdrop(scene, w, h, overlay), x, y);
    c.drawImage(tile, 0, map * R, C, R, x, y, w, h);
  }
  c.imageSmoothingEnabled = true;
  if (P && !plan.overview) drawPrefix(c, scene, plan, block, weights, ink);
}

/** Above each map: a bar from 0 to 1 with the weight on CLS (all prefix tokens), and the number where it fits. */
function drawPrefix(c, scene, plan, block, weights, ink) {
  if (!weights.signed) { // a difference has a number and no bar
    c.globalAlpha = 0.3; c.fillStyle = ink;
    for (let m = 0; m < weights.M; m++) { const at = block.at(m); c.fillRect(at.x, at.y - 4, plan.w, 3); }
    c.globalAlpha = 1; c.fillStyle = PREFIX;
    for (let m = 0; m < weights.M; m++) {
      const at = block.at(m);
      c.fillRect(at.x, at.y - 4, plan.w * Math.min(1, weights.prefix[m]), 3);
    }
  }
  if (plan.w < 24) return;
  const name = plan.w >= 60 ? `${prefixName(scene)} ` : "";
  text(c, "", 0, 0, 9.5, ink); // the font once: a number for every map is most of what is written
  for (let m = 0; m < weights.M; m++) {
    const at = block.at(m), sign = weights.signed && weights.prefix[m] >= 0 ? "+" : "";
    c.fillText(name + sign + weights.prefix[m].toFixed(2), at.x, at.y - 5.5);
  }
}

function prefixName(scene) { return scene.P === 1 ? scene.prefix[0] : "prefix"; }

/** The colour bar itself, and what the signs on the maps mean. */
function drawBarStill(c, scene, plan, state, ink) {
  const { x, y, w, h } = plan.bar, overlay = state.view === "overlay", room = plan.barRoom;
  text(c, "softmax attention weight", x, y - 6, 12, ink);
  if (overlay) { c.fillStyle = "#808080"; c.fillRect(x, y, w, h); }
  for (let i = 0; i < w; i++) {
    const v = Math.min(255, Math.floor((i / w) * 256));
    c.globalAlpha = overlay ? (70 + (v / 255) * 175) / 255 : 1;
    c.fillStyle = `rgb(${scene.lut[3 * v]},${scene.lut[3 * v + 1]},${scene.lut[3 * v + 2]})`;
    c.fillRect(x + i, y, 1, h);
  }
  c.globalAlpha = 1;
  if (plan.overview) {
    const what = plan.overview === "similarity" ? (scene.alike ? "S_attn" : "S_attn, which the kernel computes ...") : "attention distance in px";
    text(c, `on a tile: layer.head and ${what}`, x, y + h + 49, 11, ink, "left", room);
  } else if (scene.P) {
    c.fillStyle = PREFIX; c.fillRect(x, y + h + 43, 16, 4);
    const name = scene.P === 1 ? scene.prefix[0] : `the ${scene.P} prefix tokens`;
    text(c, `bar above a map: weight on ${name}, 0 to 1`, x + 22, y + h + 49, 11, ink, "left", room - 22);
  }
  if (scene.blind) text(c, "hatched: hidden, no tokens of this encoder", x, y + h + 64, 11, ink, "left", room);
}

/** Numbers at the bar: 0, the top, and the mark of uniform attention. */
function drawBar(c, scene, plan, shared, ink) {
  const { x, y, w, h } = plan.bar, uniform = 1 / scene.T;
  text(c, "0", x, y + h + 19, 11, ink);
  text(c, shared === null ? "each map's own maximum" : number(shared), x + w, y + h + 19, 11, ink, "right");
  let said = `uniform: 1/${scene.T} = ${number(uniform)}`;
  if (shared === null) said += " (on no one place: each map has its own scale)";
  else if (uniform > shared) said += " (beyond the end of this scale)";
  else {
    const at = x + (w * uniform) / shared;
    c.fillStyle = ink; c.fillRect(at - 1, y - 2, 2, h + 4);
    c.beginPath(); c.moveTo(at, y + h); c.lineTo(at - 5, y + h + 8); c.lineTo(at + 5, y + h + 8); c.fill();
    said = `▲ ${said}`;
  }
  text(c, said, x, y + h + 34, 11, ink, "left", plan.barRoom);
}

/** Two significant digits without an exponent: 0.0051, 0.52, 1.0. */
function number(value) {
  if (!(value >= 5e-9)) return "0";
  return value.toFixed(Math.min(8, Math.max(0, 1 - Math.floor(Math.log10(value) + 1e-9))));
}

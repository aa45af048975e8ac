// What the browser draws: bytes to weights, weights to colours, a layout for any width, one canvas.
// Letters: L layers, H heads, T tokens, P prefix tokens, K patches among the tokens, N patches.

const QUERY = "#ff5a1f", LOCKED = "#ff8df0", PREFIX = "#e69f00";
const GAP = 5, ROW_LABEL = 58, COLUMN_LABEL = 17, HEADING = 20, MAX_TILE = 150, MIN_SIDE_BY_SIDE = 58;

/** Bytes from the kernel (DataView) or from an exported page (base64). */
function bytesOf(sent) {
  if (typeof sent === "string") return Uint8Array.from(atob(sent), (c) => c.charCodeAt(0));
  return new Uint8Array(sent.buffer, sent.byteOffset, sent.byteLength);
}

/** The scene of the kernel with typed arrays: low, step (L,H,T), prefix (L,H,T,P), levels (L,H,T,K). */
function readScene(sent) {
  const L = sent.layers.length, H = sent.heads.length, P = sent.prefix.length, K = sent.keys.length, T = P + K;
  const raw = bytesOf(sent.maps).slice(); // a copy starts at 0, as float32 needs
  const floats = (from, count) => new Float32Array(raw.buffer, 4 * from, count);
  const rows = L * H * T, [R, C] = sent.grid;
  const token = new Int32Array(R * C).fill(-1);
  sent.keys.forEach((patch, k) => { token[patch] = P + k; });
  const lut = bytesOf(sent.lut);
  const pictures = sent.pictures.map((p) => ({ ...p, canvas: picture(bytesOf(p.rgb), p.width, p.height) }));
  return { ...sent, L, H, P, K, T, R, C, N: R * C, token, lut, pictures, low: floats(0, rows), step: floats(rows, rows),
    own: floats(2 * rows, rows * P), levels: raw.subarray(4 * rows * (2 + P)) };
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
  const { L, H, T, P, K, low, step, own, levels } = scene;
  const t = query < 0 ? -query - 1 : scene.token[query], M = mode === "each" ? L * H : L;
  const values = new Float32Array(M * K), prefix = new Float32Array(M), top = new Float32Array(M);
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

/** Where everything goes for a width in CSS pixels: pictures, bar, blocks of tiles, and the height they need. */
function layoutOf(scene, width, mode, blocks) {
  const count = scene.pictures.length, [first] = scene.pictures, tall = first.height / first.width;
  const wide = width >= 980, most = wide ? (count === 1 ? 300 : Math.min(210, (width * 0.43 - 20) / 3)) : 240;
  const side = Math.floor(Math.min(most, (width - 10 * (count - 1)) / count, most / Math.max(1, tall)));
  const pictures = scene.pictures.map((_, i) => ({ x: i * (side + 10), y: 18, w: side, h: side * tall }));
  const left = count * side + 10 * (count - 1), under = 18 + side * tall + (count > 1 ? 34 : 6);
  const barWidth = wide ? Math.max(left, 250) : Math.min(width - 4, 560);
  const bar = { x: 0, y: under + 18, w: Math.min(barWidth, 460), h: 12 };
  const x0 = wide ? Math.max(left, 250) + 26 : 0, y0 = wide ? 0 : bar.y + 86, free = width - x0 - 2;
  const heads = mode === "each" ? scene.H : 1, flow = heads === 1, cells = scene.L * heads;
  const strip = scene.P ? 14 : 3, label = flow ? 0 : ROW_LABEL;
  const fit = (w) => {
    const tileOf = (cols) => Math.floor(Math.min(MAX_TILE, (w - label - (cols - 1) * GAP) / cols));
    let cols = flow ? Math.min(scene.L, Math.max(1, Math.floor(w / 74))) : heads;
    const high = (c) => Math.ceil(scene.L / c) * (tileOf(c) * tall + strip + GAP + COLUMN_LABEL);
    while (flow && cols > 1 && tileOf(cols) < 110 && high(cols - 1) < 400) cols--;
    return { cols, tile: tileOf(cols) };
  };
  const half = fit((free - 24) / 2), whole = fit(free);
  const tallest = blocks * Math.ceil(cells / whole.cols) * (whole.tile * tall + strip + GAP);
  const beside = blocks === 2 && (half.tile >= 110 || (half.tile >= MIN_SIDE_BY_SIDE && tallest > 900));
  const { cols, tile } = beside ? half : whole, w = Math.max(4, tile), h = Math.max(4, Math.round(tile * tall));
  const rows = Math.ceil(cells / cols), lift = flow ? COLUMN_LABEL : 0;
  const pitch = { x: w + GAP, y: h + strip + GAP + lift }, head = HEADING + (flow ? 0 : COLUMN_LABEL);
  const size = { w: label + cols * pitch.x, h: head + rows * pitch.y };
  const placed = Array.from({ length: blocks }, (_, b) => {
    const x = x0 + (beside ? b * Math.max(size.w + 24 - GAP, Math.min((free + 24) / 2, size.w + 110)) : 0), y = y0 + (beside ? 0 : b * (size.h + 14));
    const at = (m) => ({ x: x + label + (m % cols) * pitch.x,
      y: y + head + lift + strip + Math.floor(m / cols) * pitch.y });
    return { x, y, at };
  });
  const low = y0 + (beside ? size.h : blocks * (size.h + 14));
  return { pictures, bar, blocks: placed, w, h, cols, rows, strip, flow, label, cells, barRoom: barWidth, headRoom: (beside ? (free - 24) / 2 : free) - 34,
    height: Math.ceil(Math.max(low, bar.y + 86)) };
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
  for (const block of plan.blocks) {
    for (let m = 0; m < plan.cells; m++) { const at = block.at(m); c.drawImage(under, at.x, at.y); }
    if (plan.flow) {
      for (let m = 0; m < plan.cells; m++) {
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
  const { C, R, K, P, lut } = scene, overlay = state.view === "overlay";
  const tile = blank(C, R * weights.M), small = tile.getContext("2d");
  const image = small.createImageData(C, R * weights.M), out = new Uint32Array(image.data.buffer);
  const paint = new Uint32Array(256);
  for (let v = 0; v < 256; v++) {
    paint[v] = (((overlay ? 70 + Math.round((v / 255) * 175) : 255) << 24) |
      (lut[3 * v + 2] << 16) | (lut[3 * v + 1] << 8) | lut[3 * v]) >>> 0;
  }
  for (let m = 0; m < weights.M; m++) {
    const top = shared ?? weights.top[m], scale = top > 0 ? 255 / top : 0;
    for (let k = 0; k < K; k++) {
      out[m * C * R + scene.keys[k]] = paint[Math.min(255, Math.round(weights.values[m * K + k] * scale))];
    }
  }
  small.putImageData(image, 0, 0);
  c.imageSmoothingEnabled = false;
  for (let m = 0; m < weights.M; m++) {
    const at = block.at(m);
    c.drawImage(tile, 0, m * R, C, R, at.x, at.y, plan.w, plan.h);
  }
  c.imageSmoothingEnabled = true;
  if (P) drawPrefix(c, scene, plan, block, weights, ink);
}

/** Above each map: a bar from 0 to 1 with the weight on CLS (all prefix tokens), and the number where it fits. */
function drawPrefix(c, scene, plan, block, weights, ink) {
  c.globalAlpha = 0.3; c.fillStyle = ink;
  for (let m = 0; m < weights.M; m++) { const at = block.at(m); c.fillRect(at.x, at.y - 4, plan.w, 3); }
  c.globalAlpha = 1; c.fillStyle = PREFIX;
  for (let m = 0; m < weights.M; m++) {
    const at = block.at(m);
    c.fillRect(at.x, at.y - 4, plan.w * Math.min(1, weights.prefix[m]), 3);
  }
  if (plan.w < 24) return;
  const name = plan.w >= 60 ? `${prefixName(scene)} ` : "";
  for (let m = 0; m < weights.M; m++) {
    const at = block.at(m);
    text(c, name + weights.prefix[m].toFixed(2), at.x, at.y - 5.5, 9.5, ink);
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
  if (scene.P) {
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
  if (!(value > 0)) return "0";
  return value.toFixed(Math.min(8, Math.max(0, 1 - Math.floor(Math.log10(value) + 1e-9))));
}

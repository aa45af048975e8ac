// All heads of a query at once: one small tile a head with its number on it, by layer or smallest first.

const ORDERS = [["off", "off"], ["layers", "by layer and head"], ["distance", "by attention distance"],
  ["similarity", "by S_attn"]];
const SLIT = 3, LEAST_TILE = 44, TILE = 56, MOST_TILE = 96, TILE_LABEL = 12, BESIDE = 24;

/** An overview shows each head by itself on one scale, whatever is chosen for the ordinary view. */
function effective(state) {
  return state.overview === "off" ? state : { ...state, head_mode: "each", scale: "shared" };
}

/** The number of each head, or null while the kernel has not computed it. */
function numbersOf(scene, order) { return (order === "similarity" ? scene.alike : scene.distance) ?? null; }

/** For each block of the overview its numbers, and its maps in the order in which they stand. Models that can be
 * subtracted keep the order of the first, so that one place is one head. */
function rankedBlocks(blocks, order) {
  const linked = blocks.at(-1).difference ?? false;
  const all = blocks.map((b) => numbersOf(b.scene, order));
  if (linked) all[2] = all[0] && all[1] ? all[1].map((value, i) => value - all[0][i]) : null;
  return blocks.map((b, i) => {
    const by = all[linked ? 0 : i], maps = Array.from({ length: b.scene.L * b.scene.H }, (_, m) => m);
    if (order !== "layers" && by) maps.sort((m, n) => by[m] - by[n] || m - n);
    return { numbers: all[i], maps };
  });
}

/** Where the tiles go. One block stands beside the pictures where there is room, more of them under the pictures, as many
 * in a row as fit. `area`: x, y and width of what is free. */
function tilesOf(blocks, order, area, tall) {
  const ranked = rankedBlocks(blocks, order), heads = Math.max(...blocks.map((b) => b.scene.H));
  const most = Math.max(...ranked.map((r) => r.maps.length)), lined = order === "layers";
  const tile = (w, cols) => Math.floor((w - (cols - 1) * SLIT) / cols), share = (n) => Math.floor((area.w - (n - 1) * BESIDE) / n);
  let across = blocks.length;
  while (across > 1 && tile(share(across), lined ? heads : 6) < LEAST_TILE) across--;
  const room = share(across), fit = (side) => Math.max(1, Math.floor((room + SLIT) / (side + SLIT)));
  const cols = lined ? Math.min(heads, fit(LEAST_TILE)) : Math.min(most, fit(TILE));
  const w = Math.max(4, Math.min(MOST_TILE, tile(room, cols))), h = Math.max(4, Math.round(w * tall));
  const pitch = { x: w + SLIT, y: h + TILE_LABEL + SLIT };
  const rowsOf = (b, r) => (lined ? b.scene.L * Math.ceil(b.scene.H / cols) : Math.ceil(r.maps.length / cols));
  const rows = Math.max(...blocks.map((b, i) => rowsOf(b, ranked[i]))), high = HEADING + rows * pitch.y + 14;
  const placed = blocks.map(({ scene }, index) => {
    const { maps, numbers } = ranked[index], place = new Int32Array(maps.length);
    maps.forEach((m, i) => { place[m] = i; });
    const x = area.x + (index % across) * (room + BESIDE), y = area.y + Math.floor(index / across) * high;
    const lines = Math.ceil(scene.H / cols);
    const slot = (m) => (lined ? [Math.floor(m / scene.H) * lines + Math.floor((m % scene.H) / cols), (m % scene.H) % cols]
      : [Math.floor(place[m] / cols), place[m] % cols]);
    const at = (m) => { const [row, col] = slot(m); return { x: x + col * pitch.x, y: y + HEADING + TILE_LABEL + row * pitch.y }; };
    return { x, y, at, index, scene, cells: maps.length, maps, numbers, signed: blocks[index].difference ?? false };
  });
  return { blocks: placed, w, h, cols, rows, headRoom: room - 24, low: area.y + Math.ceil(blocks.length / across) * high };
}

/** What stands on a tile, whatever the query: layer.head from 1, and its number. */
function drawTileNames(c, block, plan, ink) {
  const { scene, numbers, signed } = block;
  text(c, "", 0, 0, 9.5, ink);
  for (let m = 0; m < block.cells; m++) {
    const at = block.at(m), name = `${scene.layers[Math.floor(m / scene.H)] + 1}.${scene.heads[m % scene.H] + 1}`;
    const own = c.measureText(name).width;
    c.globalAlpha = 0.65; c.fillText(name, at.x, at.y - 3, plan.w); c.globalAlpha = 1;
    if (numbers) c.fillText(tileNumber(numbers[m], plan.overview, signed), at.x + own + 4, at.y - 3, Math.max(8, plan.w - own - 3));
  }
}

/** A tenth of a pixel, a hundredth of S_attn; overview.py writes the same. */
function tileNumber(value, order, signed) {
  const said = Math.abs(value).toFixed(order === "similarity" ? 2 : Math.abs(value) < 99.95 ? 1 : 0);
  return signed ? (value < 0 && Number(said) ? "-" : "+") + said : said;
}

/** A tile in words: its layer and head, its number, and its place among the others. */
function tileWords(block, map, order) {
  const { scene, numbers } = block, name = `layer ${scene.layers[Math.floor(map / scene.H)] + 1}, head ${scene.heads[map % scene.H] + 1}`;
  if (!numbers) return name;
  const what = order === "similarity" ? "S_attn" : "attention distance", unit = order === "similarity" ? "" : " px";
  const place = order === "layers" ? "" : `, place ${block.maps.indexOf(map) + 1} of ${block.cells}`;
  return `${name}, ${block.signed ? "difference of " : ""}${what} ${tileNumber(numbers[map], order, block.signed)}${unit}${place}`;
}

/** What the words under the figure say of an overview; words.py says the same in Python. */
function describeOverview(order, words, other) {
  if (order === "off") return "";
  const on = words[order === "similarity" ? "similarity" : "distance"];
  if (order === "layers") return `, every head a tile with its ${on}`;
  return `, every head a tile, sorted by its ${on}${other ? " of the first model" : ""}, smallest first`;
}

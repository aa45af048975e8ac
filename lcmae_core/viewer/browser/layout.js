// Which maps are drawn (of one query, of two, of two models and their difference), and where everything goes.

/** The blocks of maps: the query and the locked one, or two models and, where they can be subtracted, the difference. */
function blocksOf(scenes, state) {
  const scene = scenes[state.subject], { query, locked, head_mode: mode } = state;
  if (state.against === null) {
    return [{ scene, query, mark: 0, title: `query: ${placeOf(scene, query)}` },
      ...(locked === null ? [] : [{ scene, query: locked, mark: 1, title: `locked: ${placeOf(scene, locked)}` }])];
  }
  const other = scenes[state.against];
  const two = [scene, other].map((of) => ({ scene: of, query, mark: 0, title: `${of.words.model}: ${placeOf(of, query)}` }));
  if (!comparable(scene, other, mode)) return two;
  return [...two, { scene, query, mark: 0, difference: true, title: "difference, second less first" }];
}

/** The pictures above: those of the scene, and what the other model makes of the same patches. */
function frontOf(scenes, state) {
  const scene = scenes[state.subject];
  if (state.against === null || state.against === state.subject) return scene;
  const more = scenes[state.against].pictures.slice(2).map((p) => ({ ...p, title: p.title.replace("reconstructed", "the other") }));
  return { ...scene, pictures: [...scene.pictures, ...more] };
}

/** Where everything goes for a width in CSS pixels: pictures, bar, blocks of tiles, and the height they need.
 * `scenes`: that of each block. `large`: block * 10000 + map of the tile that is drawn enlarged. `tiles`: order and
 * blocks of an overview, which stands where the maps would. */
function layoutOf(scene, width, mode, blocks, scenes = Array(blocks).fill(scene), large = null, tiles = null) {
  const count = scene.pictures.length, [first] = scene.pictures, tall = first.height / first.width;
  const wide = width >= 980, most = wide ? (count === 1 ? 300 : Math.min(210, (width * 0.43 - 20) / Math.max(3, count))) : 240;
  const side = Math.floor(Math.min(most, (width - 10 * (count - 1)) / count, most / Math.max(1, tall)));
  const pictures = scene.pictures.map((_, i) => ({ x: i * (side + 10), y: 18, w: side, h: side * tall }));
  const left = count * side + 10 * (count - 1), under = 18 + side * tall + (count > 1 ? 34 : 6);
  const barWidth = wide ? Math.max(left, 250) : Math.min(width - 4, 560);
  const bar = { x: 0, y: under + 18, w: Math.min(barWidth, 460), h: 12 };
  const big = large === null ? null : largeOf(large, scenes, mode, bar.y + 104, Math.min(barWidth, 400), tall);
  const beneath = big ? big.y + big.h + 10 : bar.y + 86;
  const x0 = wide ? Math.max(left, 250) + 26 : 0, y0 = wide ? 0 : beneath, free = width - x0 - 2;
  if (tiles) {
    const area = blocks === 1 ? { x: x0, y: y0, w: free } : { x: 0, y: beneath, w: width - 2 };
    const found = tilesOf(tiles.blocks, tiles.order, area, tall);
    return { ...found, pictures, bar, strip: 0, flow: false, label: 0, cells: found.blocks[0].cells, barRoom: barWidth, large: big,
      overview: tiles.order, height: Math.ceil(Math.max(found.low, beneath)) };
  }
  const L = Math.max(...scenes.map((s) => s.L)), H = mode === "each" ? Math.max(...scenes.map((s) => s.H)) : 1;
  const flow = H === 1, cells = L * H, strip = scenes.some((s) => s.P) ? 14 : 3, label = flow ? 0 : ROW_LABEL;
  const fit = (w) => {
    const tileOf = (cols) => Math.floor(Math.min(MAX_TILE, (w - label - (cols - 1) * GAP) / cols));
    let cols = flow ? Math.min(L, Math.max(1, Math.floor(w / 74))) : H;
    const high = (c) => Math.ceil(L / c) * (tileOf(c) * tall + strip + GAP + COLUMN_LABEL);
    while (flow && cols > 1 && tileOf(cols) < 110 && high(cols - 1) < 400) cols--;
    return { cols, tile: tileOf(cols) };
  };
  const half = fit((free - 24) / 2), whole = fit(free);
  const tallest = blocks * Math.ceil(cells / whole.cols) * (whole.tile * tall + strip + GAP);
  const beside = blocks > 1 && (half.tile >= 110 || (half.tile >= MIN_SIDE_BY_SIDE && tallest > 900));
  const { cols, tile } = beside ? half : whole, w = Math.max(4, tile), h = Math.max(4, Math.round(tile * tall));
  const rows = Math.ceil(cells / cols), lift = flow ? COLUMN_LABEL : 0;
  const pitch = { x: w + GAP, y: h + strip + GAP + lift }, head = HEADING + (flow ? 0 : COLUMN_LABEL);
  const size = { w: label + cols * pitch.x, h: head + rows * pitch.y };
  const apart = Math.max(size.w + 24 - GAP, Math.min((free + 24) / 2, size.w + 110));
  const placed = scenes.map((of, index) => {
    const [row, col] = beside ? [Math.floor(index / 2), index % 2] : [index, 0];
    const x = x0 + col * apart, y = y0 + row * (size.h + 14), own = flow ? cols : of.H;
    const at = (m) => ({ x: x + label + (m % own) * pitch.x,
      y: y + head + lift + strip + Math.floor(m / own) * pitch.y });
    return { x, y, at, index, scene: of, cells: mode === "each" ? of.L * of.H : of.L };
  });
  const low = y0 + (beside ? Math.ceil(blocks / 2) : blocks) * (size.h + 14) - (beside && blocks < 3 ? 14 : 0);
  return { pictures, bar, blocks: placed, w, h, cols, rows, strip, flow, label, cells: placed[0]?.cells ?? cells, barRoom: barWidth,
    headRoom: (beside ? (free - 24) / 2 : free) - 34, large: big, height: Math.ceil(Math.max(low, beneath)) };
}

/** The enlarged tile, in the space under the colour bar; null where the maps have changed and it is gone. */
function largeOf(large, scenes, mode, y, side, tall) {
  const block = Math.floor(large / 10000), map = large % 10000, of = scenes[block];
  if (!of || map >= (mode === "each" ? of.L * of.H : of.L)) return null;
  return { x: 0, y, w: side, h: Math.round(side * tall), block, map };
}

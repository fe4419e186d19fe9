// Where the nodes of a directed graph stand: callers left of those that they call, few crossings, straight links.
// After Sugiyama: cut circles, give layers, cut long links into short ones, order each layer, place it. No document is needed.

import { layersOf } from "./layers.js";
import { ordered } from "./order.js";

/** Sizes, in the units of the drawing. */
export const SIZES = { width: 180, height: 32, row: 58, column: 335, bend: 20 };

/** Where there are many nodes, they stand nearer to each other. */
export const NEAR = { ...SIZES, row: 40, column: 360, bend: 12 };

const MANY = 60;

// Beyond it the bends of long links would need more room than the nodes.
const BENDS = 900;

/**
 * @param {string[]} names the nodes
 * @param {{source: string, destination: string}[]} links between them; loops and links elsewhere are left out
 * @returns {{places: Map<string, {x: number, y: number, layer: number}>, routes: Map<object, {x: number, y: number}[]>, width: number, height: number}}
 * the middle of each node; the points that a long link passes; the size of all
 */
export function layout(names, links, sizes = names.length > MANY ? NEAR : SIZES) {
  const known = new Set(names);
  const isKnown = (link) => link.source !== link.destination && known.has(link.source) && known.has(link.destination);
  const kept = links.filter(isKnown);
  const linked = new Set(kept.flatMap((link) => [link.source, link.destination]));
  const alone = names.filter((name) => !linked.has(name)).sort();
  const layerOf = layersOf([...linked].sort(), kept, mostLayers(linked.size, sizes));
  const { cells, neighbours, bends } = cut(layerOf, kept);
  const layers = ordered(cells, neighbours);
  const y = placed(layers, neighbours, (cell) => (bends.has(cell) ? sizes.bend : sizes.row));
  return finished({ layers, y, bends, alone, sizes });
}

/** So many that the drawing is about twice as wide as it is high; few nodes may have more. */
function mostLayers(nodes, { row, column }) {
  return Math.max(8, Math.round(Math.sqrt((2 * nodes * row) / column)));
}

/** Every node a cell of its layer; a link over several layers becomes a chain of cells, if there is room for them. */
function cut(layerOf, links) {
  const cells = new Map([...layerOf].map(([name, layer]) => [name, layer]));
  const neighbours = new Map([...layerOf.keys()].map((name) => [name, { left: [], right: [] }]));
  const bends = new Map();
  const join = (left, right) => {
    neighbours.get(left).right.push(right);
    neighbours.get(right).left.push(left);
  };
  const steps = (link) => Math.abs(layerOf.get(link.source) - layerOf.get(link.destination));
  const hasRoom = links.reduce((total, link) => total + Math.max(0, steps(link) - 1), 0) <= BENDS;
  for (const link of links) {
    const [left, right] =
      layerOf.get(link.source) <= layerOf.get(link.destination)
        ? [link.source, link.destination]
        : [link.destination, link.source];
    if (layerOf.get(left) === layerOf.get(right)) continue;
    let last = left;
    for (let layer = layerOf.get(left) + 1; hasRoom && layer < layerOf.get(right); layer += 1) {
      const bend = { link, layer };
      cells.set(bend, layer);
      bends.set(bend, link);
      neighbours.set(bend, { left: [], right: [] });
      join(last, bend);
      last = bend;
    }
    join(last, right);
  }
  return { cells, neighbours, bends };
}

/** The height of every cell: each layer in its order, as near to its neighbours as that allows. */
function placed(layers, neighbours, room) {
  const y = new Map();
  for (const layer of layers) {
    let at = 0;
    for (const cell of layer) {
      y.set(cell, at + room(cell) / 2);
      at += room(cell);
    }
  }
  const middle = (cells, otherwise) =>
    cells.length ? cells.reduce((total, cell) => total + y.get(cell), 0) / cells.length : otherwise;
  for (let round = 0; round < 8; round += 1) {
    const side = round % 2 === 0 ? "left" : "right";
    for (const layer of round % 2 === 0 ? layers : [...layers].reverse()) {
      settle(
        layer,
        layer.map((cell) => middle(neighbours.get(cell)[side], y.get(cell))),
        room,
        y,
      );
    }
  }
  return y;
}

/** The heights nearest to those wanted (least squares) that keep order and room: neighbours that would overlap move as one. */
function settle(layer, wanted, room, y) {
  const offsets = [];
  let offset = 0;
  layer.forEach((cell, index) => {
    if (index > 0) offset += (room(layer[index - 1]) + room(cell)) / 2;
    offsets.push(offset);
  });
  const blocks = [];
  wanted.forEach((height, index) => {
    let block = { sum: height - offsets[index], size: 1 };
    while (blocks.length && blocks.at(-1).sum / blocks.at(-1).size >= block.sum / block.size) {
      const before = blocks.pop();
      block = { sum: before.sum + block.sum, size: before.size + block.size };
    }
    blocks.push(block);
  });
  let index = 0;
  for (const block of blocks) {
    for (let left = block.size; left > 0; left -= 1) {
      y.set(layer[index], block.sum / block.size + offsets[index]);
      index += 1;
    }
  }
}

function finished({ layers, y, bends, alone, sizes }) {
  const places = new Map();
  const routes = new Map();
  const top = Math.min(...[...y.values()], 0);
  let bottom = 0;
  layers.forEach((layer, index) => {
    for (const cell of layer) {
      const at = { x: index * sizes.column + sizes.width / 2, y: y.get(cell) - top + sizes.row / 2, layer: index };
      bottom = Math.max(bottom, at.y + sizes.row / 2);
      const link = bends.get(cell);
      if (!link) {
        places.set(cell, at);
        continue;
      }
      if (!routes.has(link)) routes.set(link, []);
      routes.get(link).push(at);
    }
  });
  // Who is called by nobody and calls nobody stands below, in rows as wide as the rest.
  const columns = Math.max(layers.length, 3);
  alone.forEach((name, index) => {
    const column = index % columns;
    const row = Math.floor(index / columns);
    const gap = layers.length ? sizes.row : 0;
    const x = column * sizes.column + sizes.width / 2;
    places.set(name, { x, y: bottom + gap + row * sizes.row + sizes.row / 2, layer: column });
  });
  const all = [...places.values()];
  stretch([...all, ...[...routes.values()].flat()], all, sizes);
  return {
    places,
    routes,
    width: Math.max(0, ...all.map((place) => place.x + sizes.width / 2)),
    height: Math.max(0, ...[...all, ...[...routes.values()].flat()].map((place) => place.y + sizes.row / 2)),
  };
}

/** What is much wider than high gets more room between its rows. */
function stretch(points, nodes, { width, row }) {
  const right = Math.max(0, ...nodes.map((place) => place.x + width / 2));
  const bottom = Math.max(1, ...nodes.map((place) => place.y + row / 2));
  const factor = Math.min(1.8, Math.max(1, right / bottom / 1.8));
  for (const point of points) point.y *= factor;
}

// The curves of links, and where on them something can be written.

import { SIZES } from "./layout.js";

// Of a label: the width of a character, and the height.
const CHARACTER = 6.7;
const HEIGHT = 18;

/** The points that a link passes, from its source to its destination. `isDouble`: there is one the other way too. */
export function shape({ places, routes }, link, isDouble) {
  const from = places.get(link.source);
  const to = places.get(link.destination);
  const half = SIZES.width / 2;
  if (link.source === link.destination) return loop(from);
  const goesBack = to.x < from.x;
  const isBeside = to.x === from.x;
  const apart = isDouble && goesBack ? 7 : 0;
  const start = { x: from.x + (goesBack ? -half : half), y: from.y + apart };
  const end = { x: to.x + (goesBack || isBeside ? half : -half), y: to.y + apart };
  const bends = routes.get(link) ?? [];
  return [start, ...(goesBack ? [...bends].reverse() : bends), end];
}

/** Who calls itself: a loop above the node. */
function loop({ x, y }) {
  const top = y - SIZES.height / 2;
  return Object.assign(
    [
      { x: x + 30, y: top },
      { x: x - 30, y: top },
    ],
    { isLoop: true },
  );
}

/** As the attribute `d`. */
export function linkPath(points) {
  const [start, ...rest] = points;
  if (points.isLoop) return `M${start.x} ${start.y}c0 -22 -60 -22 -60 0`;
  let path = `M${start.x} ${start.y}`;
  let last = start;
  for (const point of rest) {
    const [one, two] = handles(last, point);
    path += `C${one.x} ${one.y} ${two.x} ${two.y} ${point.x} ${point.y}`;
    last = point;
  }
  return path;
}

function handles(from, to) {
  const reach = from.x === to.x ? 60 : (to.x - from.x) / 2;
  return [
    { x: from.x + reach, y: from.y },
    { x: to.x - (from.x === to.x ? -reach : reach), y: to.y },
  ];
}

/** A point of a cubic curve. */
function pointAt(from, to, t) {
  const [one, two] = handles(from, to);
  const u = 1 - t;
  const mix = (axis) => u ** 3 * from[axis] + 3 * u * u * t * one[axis] + 3 * u * t * t * two[axis] + t ** 3 * to[axis];
  return { x: mix("x"), y: mix("y") };
}

/** Those labels that find a place on their link where they cover neither another nor a node. */
export function placeLabels(labels, { places }) {
  const taken = [];
  const isFree = (box) =>
    taken.every(
      (other) => box.x > other.x + other.w || other.x > box.x + box.w || box.y > other.y + HEIGHT || other.y > box.y + HEIGHT,
    );
  const nodes = [...places.values()];
  const coversNode = (box) =>
    nodes.some(
      ({ x, y }) =>
        box.x < x + SIZES.width / 2 &&
        box.x + box.w > x - SIZES.width / 2 &&
        box.y < y + SIZES.height / 2 &&
        box.y + HEIGHT > y - SIZES.height / 2,
    );
  const placed = [];
  for (const label of labels) {
    const width = Math.ceil(label.text.length * CHARACTER) + 8;
    for (const at of spots(label.curve)) {
      const box = { x: at.x - width / 2, y: at.y - HEIGHT / 2, w: width };
      if (!isFree(box) || coversNode(box)) continue;
      taken.push(box);
      placed.push({ ...label, at: { x: box.x, y: box.y }, width });
      break;
    }
  }
  return placed;
}

function spots(points) {
  if (points.isLoop) return [{ x: points[0].x - 30, y: points[0].y - 22 }];
  const pieces = points.length - 1;
  const middle = Math.floor((pieces - 1) / 2);
  const order = [...Array(pieces).keys()].sort((a, b) => Math.abs(a - middle) - Math.abs(b - middle));
  const on = order.flatMap((piece) => [0.5, 0.42, 0.58, 0.35, 0.65].map((t) => pointAt(points[piece], points[piece + 1], t)));
  // Where nothing on it is free: above it, and below.
  const away = SIZES.height / 2 + HEIGHT / 2 + 2;
  return [...on, { ...on[0], y: on[0].y - away }, { ...on[0], y: on[0].y + away }];
}

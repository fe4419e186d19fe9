// The graph by keyboard: one node is in the tab order; the arrows go from node to node.

import { SIZES } from "./layout.js";

/**
 * @param {SVGSVGElement} svg
 * @param {() => object} drawingNow
 * @param {{viewport: object, choose: Function, open: Function}} acts
 */
export function listenToKeys(svg, drawingNow, { viewport, choose, open }) {
  svg.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const name = event.target.dataset?.name;
    const drawing = drawingNow();
    if (event.key.startsWith("Arrow")) {
      const next = name === undefined ? drawing.nodes.keys().next().value : nextOf(drawing, name, event.key);
      if (next) focus(drawing, next, viewport);
    } else if (event.key === "Enter" && name) open(name);
    else if (event.key === " " && name) choose({ node: name });
    else if (event.key === "Escape") choose({});
    else if (event.key === "+" || event.key === "=") viewport.zoom(1.25);
    else if (event.key === "-") viewport.zoom(0.8);
    else if (event.key === "0") viewport.fit();
    else return;
    event.preventDefault();
  });
  svg.addEventListener("focusin", (event) => {
    const name = event.target.dataset?.name;
    if (name) makeCurrent(drawingNow(), name);
  });
}

/** Gives a node the focus and shows it. */
export function focus(drawing, name, viewport) {
  const element = drawing.nodes.get(name);
  if (!element) return;
  viewport.reveal(drawing.where.places.get(name), SIZES.width / 2, SIZES.height / 2);
  element.focus({ preventScroll: true });
}

/** The node that the Tab key comes to. */
export function makeCurrent(drawing, name) {
  for (const [other, element] of drawing.nodes) element.setAttribute("tabindex", other === name ? 0 : -1);
}

/** Left: a caller, right: one that is called, up and down: the neighbour in the column; the nearest each time. */
function nextOf({ graph, where, nodes }, name, key) {
  const here = where.places.get(name);
  const node = graph.nodes.get(name);
  const isShown = (other) => nodes.has(other) && other !== name;
  const placed = (names) => names.filter(isShown).map((other) => ({ name: other, place: where.places.get(other) }));
  if (key === "ArrowUp" || key === "ArrowDown") {
    const sign = key === "ArrowUp" ? -1 : 1;
    const column = placed([...nodes.keys()]).filter(({ place }) => place.x === here.x && (place.y - here.y) * sign > 0);
    return nearest(column, here);
  }
  const isLeft = key === "ArrowLeft";
  const linked = placed([...node.callers.map((link) => link.source), ...node.calls.map((link) => link.destination)]);
  const isThere = ({ place }) => (isLeft ? place.x < here.x : place.x > here.x);
  return nearest(linked.filter(isThere), here) ?? nearest(placed([...nodes.keys()]).filter(isThere), here);
}

function nearest(candidates, here) {
  const far = ({ place }) => Math.hypot((place.x - here.x) / 3, place.y - here.y);
  return candidates.sort((a, b) => far(a) - far(b))[0]?.name;
}

// The graph as a drawing: nodes that can be focused, links with their verdicts, rates and latencies.

import { s } from "../dom.js";
import { millis, rate } from "../format.js";
import { SIZES, layout } from "./layout.js";
import { VERDICTS, healthOf } from "./model.js";
import { linkPath, placeLabels, shape } from "./paths.js";

// With more links than this there is no room for what is written on them, until a node is chosen.
const DENSE = 160;

// Characters of a name in the usual size.
const FITTING = 13;

const MARKS = { healthy: "●", partly: "▲", critical: "■", unknown: "○" };
export const HEALTH_TEXT = {
  healthy: "healthy",
  partly: "some unhealthy",
  critical: "none healthy",
  unknown: "no instance registered",
};

/**
 * The drawing of what `part` leaves of `graph`; `bringOut` writes on its links.
 * @param {{choose: (what: {node?: string, link?: string}) => void, open: (name: string) => void}} acts
 */
export function draw(graph, { names, links }, acts) {
  const where = layout(names, links);
  const isDense = links.length > DENSE;
  const drawing = { graph, where, isDense, links: new Map(), nodes: new Map(), root: s("g") };
  drawing.root.append(s("g", { class: "links" }), s("g", { class: "labels" }), s("g", { class: "nodes" }));
  const [linkLayer, labelLayer, nodeLayer] = drawing.root.children;
  const pairs = new Set(links.map((link) => link.key));
  // The worst are drawn last, above the others.
  const byVerdict = [...links].sort((a, b) => VERDICTS.indexOf(b.verdict) - VERDICTS.indexOf(a.verdict));
  for (const link of byVerdict) {
    const curve = shape(where, link, pairs.has(`${link.destination} ${link.source}`));
    const choose = (event) => {
      event.stopPropagation();
      acts.choose({ link: link.key });
    };
    const made = linkElement(link, curve, isDense, choose);
    // Of thousands of links few are written on: labels are made when they are.
    const labelled = () => {
      const label = labelElement(choose);
      labelLayer.append(label);
      return label;
    };
    drawing.links.set(link.key, { ...made, verdict: link.verdict, curve, label: null, labelled });
    linkLayer.append(made.group);
  }
  // By column, then from the top: so they are read, and so the Tab key comes to the first.
  const place = (name) => where.places.get(name);
  const inOrder = [...names].sort((a, b) => place(a).x - place(b).x || place(a).y - place(b).y);
  for (const name of inOrder) {
    const element = nodeElement(graph.nodes.get(name), where.places.get(name), acts);
    drawing.nodes.set(name, element);
    nodeLayer.append(element);
  }
  return drawing;
}

/** Shows what `graph` says now, where nodes and links are the same as before; `bringOut` writes on its links. */
export function redraw(drawing, graph) {
  drawing.graph = graph;
  for (const [key, { group }] of drawing.links) {
    const link = graph.links.get(key);
    if (link) group.setAttribute("class", linkClass(link));
  }
  for (const [name, element] of drawing.nodes) {
    const node = graph.nodes.get(name);
    if (node) writeNode(element, node);
  }
}

/** Brings out a node or a link with what belongs to it, and writes on links; nothing: all alike. */
export function bringOut(drawing, { node, link } = {}) {
  const chosen = node ?? link;
  drawing.root.classList.toggle("has-choice", Boolean(chosen));
  const near = new Set();
  for (const [key, { group, label }] of drawing.links) {
    const [source, destination] = key.split(" ");
    const isNear = key === link || (node !== undefined && (source === node || destination === node));
    group.classList.toggle("near", isNear);
    label?.classList.toggle("near", isNear);
    if (isNear) [source, destination].forEach((name) => near.add(name));
  }
  if (node) near.add(node);
  for (const [name, element] of drawing.nodes) {
    element.classList.toggle("near", near.has(name));
    element.classList.toggle("chosen", name === node);
  }
  write(drawing, chosen ? (key) => drawing.links.get(key).group.classList.contains("near") : undefined);
}

function linkClass(link) {
  return `link ${link.verdict}${link.now.every((row) => !row.rate) ? " idle" : ""}`;
}

function linkElement(link, curve, isDense, choose) {
  const path = linkPath(curve);
  const line = s("path", { class: "line", d: path, "marker-end": `url(#head-${link.verdict})` });
  const group = s("g", { class: linkClass(link) }, line);
  if (!isDense) group.append(s("path", { class: "reach", d: path }));
  group.addEventListener("click", choose);
  return { group, line };
}

function labelElement(choose) {
  return s("g", { class: "label", on: { click: choose } }, s("rect", { rx: 3, height: 18 }), s("text", { y: 13, x: 4 }));
}

/** What is written on a link. How long a refusal took tells nothing. */
export function labelOf(link) {
  const latency = link.p99 === undefined ? "" : ` · p99 ${millis(link.p99)}`;
  switch (link.verdict) {
    case "deny":
      return `denied ${rate(link.refusedRate)}${link.isMixed ? ` of ${rate(link.rate)}` : ""}`;
    case "failed":
      return `failed ${rate(link.rate)}`;
    case "audit":
      return `would deny ${rate(link.rate)}${latency}`;
    default:
      return `${rate(link.rate)}${latency}`;
  }
}

/** Writes labels where there is room for them, the worst and busiest first. */
function write(drawing, isWanted = () => !drawing.isDense) {
  const { graph, links } = drawing;
  const wanted = [];
  for (const [key, drawn] of links) {
    const link = graph.links.get(key);
    drawn.label?.setAttribute("visibility", "hidden");
    if (!link) continue;
    if (drawn.verdict !== link.verdict) drawn.line.setAttribute("marker-end", `url(#head-${link.verdict})`);
    drawn.verdict = link.verdict;
    if (isWanted(key)) wanted.push({ link, drawn, curve: drawn.curve, text: labelOf(link) });
  }
  wanted.sort((a, b) => VERDICTS.indexOf(a.link.verdict) - VERDICTS.indexOf(b.link.verdict) || b.link.rate - a.link.rate);
  for (const { drawn, text, link, at, width } of placeLabels(wanted.slice(0, 2 * DENSE), drawing.where)) {
    drawn.label ??= drawn.labelled();
    const { label } = drawn;
    const [box, words] = label.children;
    box.setAttribute("width", width);
    words.textContent = text;
    label.setAttribute("transform", `translate(${at.x} ${at.y})`);
    label.setAttribute("visibility", "visible");
    label.setAttribute("class", `label ${link.verdict}`);
    label.classList.toggle("near", drawn.group.classList.contains("near"));
  }
}

function nodeElement(node, place, acts) {
  const { width, height } = SIZES;
  const element = s(
    "g",
    {
      role: "link",
      tabindex: -1,
      transform: `translate(${place.x - width / 2} ${place.y - height / 2})`,
      on: {
        click: (event) => {
          event.stopPropagation();
          acts.choose({ node: node.name });
        },
        dblclick: () => acts.open(node.name),
      },
    },
    s("rect", { class: "box", width, height, rx: 6 }),
    s("text", { class: "mark", x: 10, y: 21 }),
    " ",
    // What is too long is cut off here, and whole in the title.
    s(
      "svg",
      { x: 26, width: width - 66, height },
      s("text", { class: node.name.length > FITTING ? "name long" : "name", y: 21 }, node.name),
    ),
    " ",
    s("text", { class: "much", x: width - 8, y: 21, "text-anchor": "end" }),
    s("title"),
  );
  element.dataset.name = node.name;
  writeNode(element, node);
  return element;
}

function writeNode(element, node) {
  const health = healthOf(node.service);
  const kept = [...element.classList].filter((name) => name === "near" || name === "chosen");
  element.setAttribute("class", ["node", `is-${health}`, ...kept].join(" "));
  const [, mark, , much, title] = element.children;
  mark.textContent = MARKS[health];
  much.textContent = node.service?.instances ? `${node.service.healthy}/${node.service.instances}` : "";
  const refused = node.callers.filter((link) => link.verdict === "deny").length;
  // It begins with what is written in the node.
  const text = [
    much.textContent ? `${node.name} ${much.textContent} healthy` : `${node.name}, ${HEALTH_TEXT[health]}`,
    `calls ${node.calls.length}, called by ${node.callers.length}`,
    refused ? `${refused} denied` : "",
  ];
  title.textContent = text.filter(Boolean).join(", ");
  element.setAttribute("aria-label", title.textContent);
}

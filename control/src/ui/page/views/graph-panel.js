// Beside the graph: what is chosen in it, or else what is refused.

import { button, h, link as linkTo } from "../dom.js";
import { actions } from "../edges.js";
import { count, millis, rate, when } from "../format.js";
import { HEALTH_TEXT, labelOf } from "../graph/draw.js";
import { healthOf } from "../graph/model.js";
import { facts, nothing, verdict } from "../parts.js";
import { address } from "../router.js";

const MOST = 30;

/** @param {{node?: string, link?: string}} chosen */
export function panel(graph, drawing, chosen, acts) {
  const link = graph.links.get(chosen.link);
  if (link) return ofLink(link, acts);
  const node = graph.nodes.get(chosen.node);
  return node ? ofNode(node, acts) : ofRefused(graph, acts);
}

function ofRefused(graph, acts) {
  const refused = [...graph.links.values()].filter((link) => link.verdict !== "allow");
  const order = { deny: 0, failed: 1, audit: 2 };
  refused.sort((a, b) => order[a.verdict] - order[b.verdict] || b.rate - a.rate);
  return [
    h("h2", { tabindex: -1 }, "What does not go through"),
    refused.length ? linkList(refused.slice(0, MOST), acts) : nothing("Every call that was seen is allowed."),
    refused.length > MOST ? nothing(`and ${refused.length - MOST} more; the table has them all`) : null,
    nothing("Choose a service or a line to see more of it."),
  ];
}

function ofNode(node, acts) {
  return [
    h("h2", { tabindex: -1 }, linkTo(address("service", [node.name]), node.name)),
    h("p", {}, HEALTH_TEXT[healthOf(node.service)], node.service?.protocol ? `, ${node.service.protocol}` : ""),
    h(
      "p",
      { class: "row" },
      button("Only its neighbours", () => acts.around(node.name)),
      button("Back", () => acts.choose({})),
    ),
    h("h3", {}, `Called by ${node.callers.length}`),
    linkList(node.callers, acts, (link) => link.source),
    h("h3", {}, `Calls ${node.calls.length}`),
    linkList(node.calls, acts, (link) => link.destination),
  ];
}

function ofLink(link, acts) {
  return [
    h(
      "h2",
      { tabindex: -1 },
      linkTo(address("service", [link.source]), link.source),
      " → ",
      linkTo(address("service", [link.destination]), link.destination),
    ),
    facts(
      ["Rate", rate(link.rate)],
      ["p99", millis(link.p99)],
      ["Open", count(link.open)],
      ["Seen", `${count(link.count)} times, last ${when(link.lastSeen)}`],
    ),
    h(
      "ul",
      { class: "rows" },
      link.now.map((row) => rowItem(row, acts)),
    ),
    link.before.length
      ? [
          h("h3", {}, "Before"),
          h(
            "ul",
            { class: "rows" },
            link.before.slice(0, 10).map((row) => rowItem(row, acts)),
          ),
        ]
      : null,
    h("p", {}, linkTo(address("service", [link.destination], { source: link.source }), "Methods and paths")),
    h(
      "p",
      { class: "row" },
      button("Back", () => acts.choose({})),
    ),
  ];
}

function rowItem(row, acts) {
  const latency = row.p99_ms === undefined || row.p99_ms === null ? "" : `, p99 ${millis(row.p99_ms)}`;
  return h(
    "li",
    {},
    verdict(row.verdict),
    ` ${row.protocol}${row.port === "main" ? "" : ` ${row.port}`}, ${rate(row.rate)}${latency}, ${count(row.count)} in all`,
    h("div", { class: "quiet" }, row.because, ", last ", when(row.last_seen)),
    h("div", { class: "actions" }, actions(row, acts.changed)),
  );
}

function linkList(links, acts, textOf = (link) => `${link.source} → ${link.destination}`) {
  if (!links.length) return nothing("nobody that was seen");
  return h(
    "ul",
    { class: "rows" },
    links
      .slice(0, MOST)
      .map((link) =>
        h(
          "li",
          {},
          h("button", { type: "button", class: "plain", on: { click: () => acts.choose({ link: link.key }) } }, textOf(link)),
          " ",
          verdict(link.verdict),
          h("div", { class: "quiet" }, labelOf(link)),
        ),
      ),
    links.length > MOST ? h("li", { class: "quiet" }, `and ${links.length - MOST} more`) : null,
  );
}

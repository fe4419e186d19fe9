// The graph of services: who calls whom, and what becomes of it.

import { Failure } from "../api.js";
import { button, field, h, refill, replace, s, say, select } from "../dom.js";
import { edgeTable } from "../edges.js";
import { plural } from "../format.js";
import { bringOut, draw, redraw } from "../graph/draw.js";
import { focus, listenToKeys, makeCurrent } from "../graph/keys.js";
import { SIZES } from "../graph/layout.js";
import { VERDICTS, VERDICT_TEXT, around, graphOf, part, spread } from "../graph/model.js";
import { Viewport } from "../graph/viewport.js";
import { failed, title } from "../parts.js";
import { address, go } from "../router.js";
import { keepFresh, seen } from "../seen.js";
import { panel } from "./graph-panel.js";

const SPANS = [
  ["300", "5 minutes"],
  ["3600", "1 hour"],
  ["86400", "24 hours"],
  ["604800", "7 days"],
];

const READABLE = 60;

export const name = "Graph";

export function show({ root, route, signal }) {
  new GraphView(root, route, signal);
}

class GraphView {
  constructor(root, route, signal) {
    this.signal = signal;
    this.chosen = {};
    this.around = route.query.get("around") ?? "";
    this.verdicts = new Set(VERDICTS);
    this.build(root, route);
    this.refresh = keepFresh(() => this.load(), signal);
  }

  build(root, route) {
    this.filter = h("input", {
      type: "search",
      value: route.query.get("filter") ?? "",
      placeholder: "part of a name",
      spellcheck: "false",
      autocomplete: "off",
      on: { input: () => this.narrow() },
    });
    this.span = select(SPANS, "3600", { on: { change: () => this.refresh() } });
    this.note = h("p", { class: "quiet", id: "graph-note" });
    this.problem = h("div");
    this.svg = s(
      "svg",
      {
        class: "graph",
        role: "group",
        "aria-label": "Services and their calls. Arrow keys move between services, Enter opens one, Space shows its calls.",
        tabindex: -1,
      },
      heads(),
      s("g"),
    );
    this.viewport = new Viewport(this.svg, this.svg.lastChild);
    this.side = h("aside", { class: "panel", "aria-label": "What is chosen" });
    this.stage = h("div", { class: "stage" }, this.svg, this.zoomButtons());
    this.tablePlace = h("div", { hidden: true });
    this.asTable = h(
      "button",
      { type: "button", "aria-pressed": "false", on: { click: () => this.switchTable() } },
      "As a table",
    );
    const acts = { viewport: this.viewport, choose: (what) => this.choose(what), open };
    listenToKeys(this.svg, () => this.drawing, acts);
    this.svg.addEventListener("click", () => {
      if (!this.svg.classList.contains("is-dragged")) this.choose({});
    });
    replace(
      root,
      title("Services and their calls"),
      h(
        "div",
        { class: "row tools" },
        field("Filter", this.filter),
        field("Seen in the last", this.span),
        this.legend(),
        this.asTable,
      ),
      this.note,
      this.problem,
      h("div", { class: "split" }, this.stage, this.side),
      this.tablePlace,
    );
  }

  /** Which verdicts are shown; it is the legend too. */
  legend() {
    const box = (verdict) => {
      const toggle = (event) => {
        if (event.target.checked) this.verdicts.add(verdict);
        else this.verdicts.delete(verdict);
        this.draw();
      };
      const sample = s(
        "svg",
        { class: "sample", viewBox: "0 0 34 8", "aria-hidden": "true" },
        s("g", { class: `link ${verdict}` }, s("path", { class: "line", d: "M0 4H34" })),
      );
      return h(
        "label",
        { class: "choice" },
        h("input", { type: "checkbox", checked: true, on: { change: toggle } }),
        sample,
        VERDICT_TEXT[verdict],
      );
    };
    return h("fieldset", { class: "legend" }, h("legend", {}, "Calls"), ["allow", "deny", "audit", "failed"].map(box));
  }

  zoomButtons() {
    const tool = (text, label, act) =>
      h("button", { type: "button", "aria-label": label, title: label, on: { click: act } }, text);
    return h(
      "div",
      { class: "zoom" },
      tool("+", "Nearer", () => this.viewport.zoom(1.25)),
      tool("−", "Farther", () => this.viewport.zoom(0.8)),
      tool("⤢", "Show all", () => this.viewport.fit()),
    );
  }

  async load() {
    try {
      const { edges, services, leftOut } = await seen(Number(this.span.value), {}, this.signal);
      this.graph = graphOf(edges, services);
      this.edges = edges;
      this.leftOut = leftOut;
      replace(this.problem);
      this.draw();
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof Failure)) throw error;
      replace(this.problem, failed(error));
    }
  }

  shown() {
    if (this.around) return spread(this.graph, [this.around], 1);
    return around(this.graph, this.filter.value);
  }

  /** Draws anew where other nodes or links are to be seen; else only writes what changed. */
  draw() {
    if (!this.graph) return;
    const shown = part(this.graph, this.shown(), this.verdicts, this.around);
    const signature = JSON.stringify([shown.names, shown.links.map((link) => link.key)]);
    if (signature === this.signature) {
      redraw(this.drawing, this.graph);
    } else {
      this.signature = signature;
      this.drawNew(shown);
    }
    bringOut(this.drawing, this.chosen);
    this.tell(shown);
    if (!this.tablePlace.hidden) this.fillTable();
  }

  drawNew(shown) {
    const focused = this.svg.contains(document.activeElement) ? document.activeElement.dataset.name : undefined;
    const isFirst = !this.drawing || this.isNarrowed;
    this.isNarrowed = false;
    this.drawing = draw(this.graph, shown, { choose: (what) => this.choose(what), open });
    this.svg.classList.toggle("is-dense", this.drawing.isDense);
    const { width, height } = this.drawing.where;
    // What is not in the page yet costs no layout: it goes there as it will be seen.
    this.viewport.show(this.drawing.root, { width: width || 1, height: height || 1 });
    // Few are large enough to be read, if need be without the last of them; many are an overview.
    if (isFirst) this.viewport.fit(shown.names.length <= READABLE ? 0.55 : undefined);
    this.svg.replaceChild(this.drawing.root, this.svg.lastChild);
    if (focused && this.drawing.nodes.has(focused)) focus(this.drawing, focused, this.viewport);
    else makeCurrent(this.drawing, this.drawing.nodes.keys().next().value);
    // It is seen once it is painted.
    requestAnimationFrame(() => setTimeout(() => performance.mark("graph-drawn")));
    this.svg.dataset.drawn = shown.names.length;
  }

  tell({ names, links }) {
    const refused = links.filter((link) => link.verdict === "deny").length;
    const parts = [
      `${plural(names.length, "service")}, ${plural(links.length, "pair")} with calls`,
      refused ? `${refused} with denials` : "no denials",
    ];
    if (this.leftOut) parts.push(`${plural(this.leftOut, "call")} had no room and are not shown`);
    const only = this.around
      ? [` Only ${this.around} and its neighbours. `, button("Show all", () => this.leaveAround())]
      : null;
    replace(this.note, `${parts.join(", ")}.`, only);
    if (!links.length && !this.filter.value) this.note.append(" Calls appear within a few seconds of being made.");
    refill(
      this.side,
      panel(this.graph, this.drawing, this.chosen, {
        choose: (what) => this.choose(what),
        around: (name) => this.goAround(name),
        changed: () => this.refresh(),
      }),
    );
  }

  choose(what) {
    const isFromPanel = this.side.contains(document.activeElement);
    this.chosen = what;
    this.draw();
    if (isFromPanel) {
      this.side.querySelector("h2").focus();
      this.reveal(what);
    } else if (what.node) say(`${what.node} is chosen.`);
  }

  /** What was chosen elsewhere is brought into the view, unless that is an overview. */
  reveal({ node, link }) {
    if (this.viewport.isFar()) return;
    for (const name of node ? [node] : (link ?? "").split(" ")) {
      const place = this.drawing.where.places.get(name);
      if (place) this.viewport.reveal(place, SIZES.width / 2, SIZES.height / 2);
    }
  }

  goAround(name) {
    this.around = name;
    this.isNarrowed = true;
    this.chosen = { node: name };
    this.draw();
    focus(this.drawing, name, this.viewport);
  }

  leaveAround() {
    this.around = "";
    this.isNarrowed = true;
    this.draw();
  }

  narrow() {
    this.around = "";
    this.isNarrowed = true;
    this.draw();
  }

  switchTable() {
    const isTable = this.tablePlace.hidden;
    this.tablePlace.hidden = !isTable;
    this.stage.parentElement.hidden = isTable;
    this.asTable.setAttribute("aria-pressed", String(isTable));
    this.draw();
  }

  /** Not while somebody is in it: the rows would move under the hands. */
  fillTable() {
    if (this.tablePlace.contains(document.activeElement)) return;
    const kept = this.shown();
    const isKept = (row) =>
      (kept === null || (kept.has(row.source) && kept.has(row.destination))) && this.verdicts.has(row.verdict);
    replace(
      this.tablePlace,
      edgeTable("Calls between services", (this.edges ?? []).filter(isKept), () => this.refresh()),
    );
  }
}

function open(service) {
  go(address("service", [service]));
}

/** The heads of the arrows, one a verdict. */
function heads() {
  const head = (verdict) =>
    s(
      "marker",
      {
        id: `head-${verdict}`,
        class: `head ${verdict}`,
        viewBox: "0 0 8 8",
        refX: 7,
        refY: 4,
        markerWidth: 7,
        markerHeight: 7,
        orient: "auto",
      },
      s("path", { d: "M0 0L8 4L0 8Z" }),
    );
  return s("defs", {}, VERDICTS.map(head));
}

// Intentions that allow what was seen and nothing else.

import { Failure, call } from "./api.js";
import { button, field, h, replace, select } from "./dom.js";
import { clock, count, plural } from "./format.js";
import { failed, table } from "./parts.js";
import { askThenPlan, says } from "./plan.js";

const SPANS = [
  ["3600", "1 hour"],
  ["86400", "24 hours"],
  ["604800", "7 days"],
  ["2592000", "30 days"],
];

/** Shows them, and their plan. `changed` is told when they were put in force. */
export async function suggest(changed) {
  if (await askThenPlan("Intentions from what was seen", choices, planOf)) await changed();
}

function planOf({ intentions, isWhole }) {
  const body = { intentions, merge: !isWhole, default: isWhole ? "deny" : undefined };
  return { name: isWhole ? "Only what was seen" : "Add what was seen", change: { method: "PUT", path: "/v1/intentions", body } };
}

function choices(close) {
  const answer = h("div", { "aria-live": "polite" });
  // What is shown is of what was chosen when it was asked for.
  const on = { change: () => replace(answer) };
  const span = select(SPANS, "86400", { on });
  const depths = [
    ["", "whole services"],
    ["l7", "methods and paths"],
  ];
  const depth = select(depths, "", { on });
  const ask = async () => {
    try {
      const body = { since_s: Number(span.value), l7: depth.value === "l7" };
      replace(answer, suggestion(await call("POST", "/v1/suggest", { body }), close));
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      replace(answer, failed(error));
    }
  };
  return h(
    "div",
    {},
    h(
      "div",
      { class: "row" },
      field("Seen in the last", span),
      field("Down to", depth),
      button("Suggest", ask, { class: "primary" }),
    ),
    answer,
  );
}

function suggestion(made, close) {
  const intentions = made.intentions.map((one) => one.intention);
  const columns = [
    { name: "Intention", cell: (one) => h("code", {}, says(one.intention)) },
    { name: "Seen", number: true, cell: (one) => count(one.evidence.reduce((total, seen) => total + seen.count, 0)) },
    {
      name: "Last",
      cell: (one) =>
        clock(
          one.evidence
            .map((seen) => seen.last_seen)
            .sort()
            .at(-1),
        ),
    },
  ];
  return [
    h(
      "p",
      {},
      `${plural(intentions.length, "intention")} from ${plural(made.edges, "edge")}, ${clock(made.since)} to ${clock(made.until)}.`,
    ),
    (made.notes ?? []).map((note) => h("p", { class: "warns" }, note)),
    intentions.length ? table("Suggested intentions", columns, made.intentions, { most: 100 }) : null,
    h("details", {}, h("summary", {}, "As a file"), h("pre", { tabindex: 0 }, made.file)),
    intentions.length
      ? h(
          "div",
          { class: "row" },
          button("Plan: add these", () => close({ intentions }), { class: "primary" }),
          button("Plan: only these, and deny by default", () => close({ intentions, isWhole: true })),
        )
      : null,
  ];
}

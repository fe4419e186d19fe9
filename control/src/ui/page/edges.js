// Edges in tables, with what can be done about those that are refused.

import { allow } from "./allow.js";
import { button, h, link as linkTo } from "./dom.js";
import { explainDialog } from "./explain.js";
import { count, millis, rate, when } from "./format.js";
import { VERDICTS } from "./graph/model.js";
import { table, verdict } from "./parts.js";
import { address } from "./router.js";
import { asked } from "./seen.js";

/** The buttons of a row: why it is so, and if it is refused, allow it. `changed` is told when something was done. */
export function actions(row, changed) {
  const call = `${row.source} to ${row.destination}${row.method ? `, ${row.method} ${row.shape ?? ""}` : ""}`;
  const why = button(
    "Why",
    async () => {
      if (await explainDialog(asked(row))) changed();
    },
    { "aria-label": `Why: ${call}` },
  );
  if (row.verdict !== "deny" && row.verdict !== "audit") return [why];
  const open = button(
    "Allow…",
    async () => {
      if (await allow(asked(row))) changed();
    },
    { "aria-label": `Allow ${call}` },
  );
  return [why, " ", open];
}

/** All rows, the worst first. `hide` has the names of columns to leave out. */
export function edgeTable(caption, rows, changed, { hide = [], most } = {}) {
  const columns = [
    { name: "Caller", of: (row) => row.source, cell: (row) => linkTo(address("service", [row.source]), row.source) },
    {
      name: "Called",
      of: (row) => row.destination,
      cell: (row) => linkTo(address("service", [row.destination]), row.destination),
    },
    {
      name: "Request",
      of: (row) => `${row.method ?? ""} ${row.shape ?? ""}`,
      cell: (row) =>
        h(
          "code",
          {},
          row.method ? `${row.method} ${row.shape ?? ""}` : `${row.protocol}${row.port === "main" ? "" : ` ${row.port}`}`,
        ),
    },
    {
      name: "Verdict",
      of: (row) => VERDICTS.indexOf(row.verdict),
      cell: (row) => [verdict(row.verdict), h("br"), h("small", { class: "quiet" }, row.because)],
    },
    { name: "Rate", number: true, of: (row) => row.rate, cell: (row) => rate(row.rate) },
    { name: "p50", number: true, of: (row) => row.p50_ms ?? -1, cell: (row) => millis(row.recent?.p50_ms ?? row.p50_ms) },
    { name: "p99", number: true, of: (row) => row.p99_ms ?? -1, cell: (row) => millis(row.recent?.p99_ms ?? row.p99_ms) },
    { name: "Count", number: true, of: (row) => row.count, cell: (row) => count(row.count) },
    { name: "Errors", number: true, of: (row) => row.errors, cell: (row) => count(row.errors) },
    { name: "Last seen", number: true, of: (row) => Date.parse(row.last_seen), cell: (row) => when(row.last_seen) },
    { name: "", cell: (row) => h("span", { class: "actions" }, actions(row, changed)) },
  ];
  const shown = columns.filter(({ name }) => !hide.includes(name));
  const worstFirst = [...rows].sort(
    (a, b) => VERDICTS.indexOf(a.verdict) - VERDICTS.indexOf(b.verdict) || b.rate - a.rate || b.count - a.count,
  );
  return table(caption, shown, worstFirst, { most });
}

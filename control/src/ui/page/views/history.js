// Every change of intentions and of the default policy, and the way back.

import { Failure, get } from "../api.js";
import { button, field, h, replace } from "../dom.js";
import { clock, plural } from "../format.js";
import { failed, nothing, title } from "../parts.js";
import { differences, planned } from "../plan.js";

export const name = "History";

const PAGE = 50;

export function show({ root, route: { query }, signal }) {
  const view = { list: h("ol", { class: "changes" }), more: h("p"), problem: h("div"), signal, changes: [] };
  const side = (of) =>
    h("input", {
      type: "search",
      value: query.get(of) ?? "",
      autocomplete: "off",
      spellcheck: "false",
      on: { change: () => first(view) },
    });
  view.source = side("source");
  view.destination = side("destination");
  replace(
    root,
    title("History"),
    h("div", { class: "row tools" }, field("Caller", view.source), field("Called", view.destination)),
    view.problem,
    view.list,
    view.more,
  );
  return first(view);
}

function first(view) {
  view.changes = [];
  return load(view);
}

async function load(view) {
  try {
    const before = view.changes.at(-1)?.revision;
    const found = await get(
      "/v1/history",
      { source: view.source.value.trim(), destination: view.destination.value.trim(), limit: PAGE, before },
      view.signal,
    );
    view.changes.push(...found);
    replace(view.problem);
    replace(
      view.list,
      view.changes.map((change, index) => item(view, change, index)),
    );
    replace(
      view.more,
      found.length === PAGE ? button("Older changes", () => load(view)) : null,
      view.changes.length ? null : nothing("No change is kept."),
    );
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Failure)) throw error;
    replace(view.problem, failed(error));
  }
}

function item(view, change, index) {
  const { revision, at, who, from, what, reason } = change;
  const isNow = index === 0 && !view.source.value && !view.destination.value;
  const back = async (name, to) => {
    const change = { method: "POST", path: "/v1/rollback", body: { revision: to } };
    if (await planned(name, change)) await first(view);
  };
  const wayBack = isNow
    ? button("Undo…", () => back(`Undo revision ${revision}`, revision - 1), { "aria-label": `Undo revision ${revision}` })
    : button(`Back to revision ${revision}…`, () => back(`Back to revision ${revision}`, revision));
  return h(
    "li",
    {},
    h(
      "div",
      { class: "title" },
      h("h2", {}, `Revision ${revision}`, h("span", { class: "quiet" }, ` ${what ?? ""}`)),
      h("span", { class: "actions" }, isNow ? [h("span", { class: "quiet" }, "in force now"), " "] : null, wayBack),
    ),
    h(
      "p",
      {},
      h("time", { datetime: at }, clock(at)),
      ` by ${who}`,
      from ? ` from ${from}` : "",
      reason ? [": ", h("q", {}, reason)] : null,
    ),
    differences({ added: [], changed: [], removed: [], ...change }),
    change.unreadable?.length ? nothing(`What ${change.unreadable.join(", ")} said before is not known.`) : null,
    change.left_out ? nothing(`and ${plural(change.left_out, "other pair")}`) : null,
  );
}

// What several views have in common: titles, failures, tables, verdicts, dialogs.

import { cure } from "./api.js";
import { button, h, replace } from "./dom.js";
import { VERDICT_TEXT } from "./graph/model.js";

/** The title of a view, which gets the focus when the view comes. */
export function title(text, ...beside) {
  return h("div", { class: "title" }, h("h1", { tabindex: -1 }, text), beside);
}

/** Why something failed, and what to do. */
export function failed(error) {
  const more = cure(error);
  return h(
    "div",
    { class: "failed", role: "alert" },
    h("p", {}, error.message),
    more ? h("p", { class: "quiet" }, more) : null,
  );
}

/** Nothing to show, and why. */
export function nothing(...text) {
  return h("p", { class: "quiet nothing" }, text);
}

/** A verdict in its colour, and in words. */
export function verdict(of, text = VERDICT_TEXT[of] ?? of) {
  return h("span", { class: `verdict ${of}` }, text);
}

/** A health in its colour, and in words. */
export function health(word, text = word) {
  const mark =
    { healthy: "●", passing: "●", warning: "▲", partly: "▲", critical: "■", maintenance: "◆", left: "○" }[word] ?? "○";
  return h("span", { class: `health is-${word}` }, h("span", { "aria-hidden": "true" }, `${mark} `), text);
}

/**
 * A table that its headings sort. A column: {name, of(row) → text or number to sort by, cell(row) → what is shown, number}.
 * `most` rows are shown at first.
 */
export function table(caption, columns, rows, { most = 200, sortBy } = {}) {
  let shown = most;
  let order = sortBy ?? null;
  const head = h("tr");
  const body = h("tbody");
  const more = h("p", { class: "more" });
  const show = () => {
    const sorted = order ? [...rows].sort(comparing(columns[order.column], order.down)) : rows;
    replace(
      head,
      columns.map((column, index) => heading(column, index)),
    );
    replace(
      body,
      sorted.slice(0, shown).map((row) =>
        h(
          "tr",
          {},
          columns.map((column) => cellOf(column, row)),
        ),
      ),
    );
    const left = rows.length - shown;
    replace(
      more,
      left > 0
        ? [
            `${left} more. `,
            button(`Show ${Math.min(left, 500)}`, () => {
              shown += 500;
              show();
            }),
          ]
        : null,
    );
  };
  const heading = (column, index) => {
    if (!column.of)
      return h(
        "th",
        { scope: "col", class: column.number ? "number" : null },
        column.name || h("span", { class: "unseen" }, "Actions"),
      );
    const isOrder = order?.column === index;
    const sort = () => {
      order = { column: index, down: isOrder ? !order.down : Boolean(column.number) };
      show();
      head.children[index].querySelector("button").focus();
    };
    const arrow = isOrder ? (order.down ? " ▾" : " ▴") : "";
    const sorted = isOrder ? (order.down ? "descending" : "ascending") : null;
    return h(
      "th",
      { scope: "col", "aria-sort": sorted, class: column.number ? "number" : null },
      h(
        "button",
        { type: "button", class: "plain", on: { click: sort } },
        column.name,
        h("span", { "aria-hidden": "true" }, arrow),
      ),
    );
  };
  show();
  const made = h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, head), body);
  return h("div", { class: "wide", role: "region", "aria-label": caption, tabindex: 0 }, made, more);
}

function cellOf(column, row) {
  const shown = column.cell ? column.cell(row) : column.of(row);
  return h("td", { class: column.number ? "number" : null }, shown);
}

function comparing(column, down) {
  const sign = down ? -1 : 1;
  return (a, b) => {
    const [one, two] = [column.of(a) ?? "", column.of(b) ?? ""];
    const compared = typeof one === "number" && typeof two === "number" ? one - two : String(one).localeCompare(String(two));
    return sign * compared;
  };
}

/** Facts by name. */
export function facts(...pairs) {
  const told = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h(
    "dl",
    { class: "facts" },
    told.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** A dialog over the page; `build(close)` gives its content. Resolves with what it was closed with. */
export function dialog(name, build) {
  return new Promise((resolve) => {
    let result;
    const close = (value) => {
      result = value;
      made.close();
    };
    const heading = h("h2", { id: "dialog-title", tabindex: -1 }, name);
    const top = h("div", { class: "title" }, heading, h("button", { type: "button", on: { click: () => close() } }, "Close"));
    const made = h("dialog", { "aria-labelledby": "dialog-title" }, top, build(close));
    made.addEventListener("close", () => {
      made.remove();
      resolve(result);
    });
    document.body.append(made);
    made.showModal();
    heading.focus();
  });
}

/** Text to copy, with a button that does. */
export function command(text) {
  const copied = async (pressed) => {
    try {
      await navigator.clipboard.writeText(text);
      pressed.textContent = "Copied";
    } catch {
      // Without leave, the text can still be marked.
      getSelection().selectAllChildren(code);
    }
  };
  const code = h("code", {}, text);
  return h("div", { class: "command" }, code, button("Copy", copied));
}

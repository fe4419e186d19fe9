// Decisions as the sidecars make them: denials first of all.

import { allow } from "../allow.js";
import { button, field, h, link as linkTo, replace, select } from "../dom.js";
import { explainDialog } from "../explain.js";
import { clock, plural } from "../format.js";
import { live } from "../live.js";
import { failed, nothing, title, verdict } from "../parts.js";
import { address } from "../router.js";

export const name = "Live";

const CHOICES = [
  ["deny", "denied"],
  ["deny,audit,failed", "denied, would be denied, failed"],
  ["deny,audit,failed,allow", "everything"],
];
const SHOWN = 200;

export function show({ root, route: { query }, signal }) {
  const view = { paused: null, missed: 0, body: h("tbody"), note: h("p", { class: "quiet" }), problem: h("div") };
  view.service = h("input", {
    type: "search",
    value: query.get("service") ?? "",
    placeholder: "part of a name",
    spellcheck: "false",
    autocomplete: "off",
    on: { input: () => fill(view) },
  });
  view.verdicts = select(CHOICES, live.verdicts?.includes("allow") ? CHOICES[2][0] : CHOICES[1][0], {
    on: { change: () => choose(view) },
  });
  view.pause = h("button", { type: "button", "aria-pressed": "false", on: { click: () => pause(view) } }, "Pause");
  const head = ["When", "Verdict", "Caller", "Called", "Request", "Because", "Instance"].map((text) =>
    h("th", { scope: "col" }, text),
  );
  replace(
    root,
    title("Live"),
    h(
      "div",
      { class: "row tools" },
      field("Service", view.service),
      field("Show", view.verdicts),
      view.pause,
      button("Clear", () => {
        live.decisions.length = 0;
        if (view.paused) view.paused = [];
        fill(view);
      }),
    ),
    view.problem,
    view.note,
    h(
      "div",
      { class: "wide", role: "region", "aria-label": "Decisions", tabindex: 0 },
      h(
        "table",
        {},
        h("caption", { class: "unseen" }, "Decisions, the newest first"),
        h("thead", {}, h("tr", {}, head, h("th", { scope: "col" }, h("span", { class: "unseen" }, "Actions")))),
        view.body,
      ),
    ),
  );
  let isWaiting = false;
  const soon = () => {
    if (view.paused) view.missed += 1;
    if (isWaiting) return;
    isWaiting = true;
    // Rows under somebody's hands stay.
    setTimeout(() => {
      isWaiting = false;
      if (
        !signal.aborted &&
        !view.paused &&
        !view.body.contains(document.activeElement) &&
        !document.querySelector("dialog[open]")
      )
        fill(view);
      else tell(view);
    }, 250);
  };
  live.addEventListener("decision", soon, { signal });
  live.addEventListener("state", () => tell(view), { signal });
  fill(view);
}

/** More is asked of the control plane only while it is wanted. */
function choose(view) {
  const isAll = view.verdicts.value.includes("allow");
  if (isAll !== live.verdicts.includes("allow")) live.start(isAll ? ["deny", "audit", "failed", "allow"] : undefined);
  fill(view);
}

function pause(view) {
  // What is looked at stays, and can be filtered, while others come.
  view.paused = view.paused ? null : [...live.decisions];
  view.missed = 0;
  view.pause.setAttribute("aria-pressed", String(Boolean(view.paused)));
  view.pause.textContent = view.paused ? "Go on" : "Pause";
  fill(view);
}

function fill(view) {
  const words = view.service.value.trim().toLowerCase();
  const wanted = view.verdicts.value.split(",");
  const all = view.paused ?? live.decisions;
  const kept = all.filter(
    (one) => wanted.includes(one.verdict) && (one.source.includes(words) || one.destination.includes(words)),
  );
  replace(view.body, kept.slice(0, SHOWN).map(row));
  view.shown = kept.length;
  view.hidden = all.length - kept.length;
  view.body.closest(".wide")?.toggleAttribute("hidden", !kept.length);
  tell(view);
}

function tell(view) {
  const state = { open: "Connected.", waiting: "Not connected; trying again.", refused: "" }[live.state];
  const missed = view.paused ? ` Paused; ${plural(view.missed, "line")} since.` : "";
  replace(view.note, `${state}${missed}`, view.shown ? ` ${plural(view.shown, "line")}, the newest first.` : null);
  const text = live.problem;
  replace(
    view.problem,
    live.state === "refused"
      ? failed({ status: 403, message: `The control plane does not let this token watch. ${text.slice(0, 200)}` })
      : null,
    view.shown ? null : nothing(noneShown(view)),
  );
}

function noneShown(view) {
  if (view.hidden) return `None of ${plural(view.hidden, "line")} is of such a service and verdict.`;
  return view.paused ? "Nothing was there yet." : "Nothing yet. What happens from now on appears here.";
}

function row(one) {
  const { source, destination, method, path } = one;
  const asked = { source, destination, port: one.port, method, path, shape: path, verdict: one.verdict };
  const call = `${source} to ${destination}`;
  const isRefused = one.verdict === "deny" || one.verdict === "audit";
  const actions = [
    button("Why", () => explainDialog(asked), { "aria-label": `Why: ${call}` }),
    isRefused ? [" ", button("Allow…", () => allow(asked), { "aria-label": `Allow ${call}` })] : null,
  ];
  return h(
    "tr",
    {},
    h("td", { class: "number" }, clock(one.at)),
    h("td", {}, verdict(one.verdict), one.count > 1 ? ` ×${one.count}` : ""),
    h("td", {}, linkTo(address("service", [source]), source)),
    h("td", {}, linkTo(address("service", [destination]), destination)),
    h(
      "td",
      {},
      h("code", {}, method ? `${method} ${path ?? ""}` : `${one.protocol}${one.port === "main" ? "" : ` ${one.port}`}`),
      one.status ? ` ${one.status}` : "",
    ),
    h("td", { class: "words" }, one.because),
    h("td", {}, one.instance),
    h("td", {}, h("span", { class: "actions" }, actions)),
  );
}

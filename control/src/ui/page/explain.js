// Why a call is allowed or denied: what the one evaluator says, and what can be done about it.

import { Failure, call } from "./api.js";
import { button, field, h, replace, select } from "./dom.js";
import { clock, plural } from "./format.js";
import { allow } from "./allow.js";
import { command, dialog, failed, table, verdict } from "./parts.js";

const METHODS = ["", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];

/** Shows it over the page. Resolves with whether something was changed from there. */
export function explainDialog(asked) {
  let isChanged = false;
  const content = h("div");
  const ask = () =>
    fill(content, asked, (done) => {
      isChanged ||= done;
      if (done) ask();
    });
  return dialog(`Why: ${asked.source} → ${asked.destination}`, () => {
    ask();
    return content;
  }).then(() => isChanged);
}

async function fill(content, asked, changed) {
  replace(content, h("p", { class: "quiet" }, "Asking…"));
  try {
    replace(content, explained(await decide(asked), asked, changed));
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    replace(content, failed(error));
  }
}

/** Asks the evaluator about a call {source, destination, port?, method?, path?}. */
function decide(asked) {
  const members = ["source", "destination", "port", "method", "path"];
  const body = Object.fromEntries(members.filter((name) => asked[name]).map((name) => [name, asked[name]]));
  return call("POST", "/v1/decide", { body });
}

/** A question and its answer, for the view of intentions. */
export function explainBox(names, asked = {}) {
  const source = h("input", {
    type: "text",
    required: true,
    list: names,
    value: asked.source ?? "",
    autocomplete: "off",
    spellcheck: "false",
  });
  const destination = h("input", {
    type: "text",
    required: true,
    list: names,
    value: asked.destination ?? "",
    autocomplete: "off",
    spellcheck: "false",
  });
  const method = select(
    METHODS.map((name) => [name, name || "any (the connection)"]),
    asked.method ?? "",
  );
  const path = h("input", {
    type: "text",
    value: asked.path ?? "",
    placeholder: "/",
    autocomplete: "off",
    spellcheck: "false",
  });
  const answer = h("div", { "aria-live": "polite" });
  const question = () => ({
    source: source.value.trim(),
    destination: destination.value.trim(),
    method: method.value,
    path: path.value,
  });
  const ask = () => fill(answer, question(), (done) => done && ask());
  const form = h(
    "form",
    {
      class: "row",
      on: {
        submit: (event) => {
          event.preventDefault();
          ask();
        },
      },
    },
    field("Caller", source),
    field("Called", destination),
    field("Method", method),
    field("Path", path),
    h("button", { type: "submit", class: "primary" }, "Explain"),
  );
  if (asked.source && asked.destination) ask();
  return h("div", {}, form, answer);
}

function explained(decided, asked, changed) {
  const kind = decided.would_deny ? "audit" : decided.allowed ? "allow" : "deny";
  const { candidates, readings = [] } = decided.explanation;
  const isRefused = !decided.allowed || decided.would_deny;
  return h(
    "div",
    { class: "explained" },
    h(
      "p",
      { class: "answer" },
      verdict(kind),
      " by ",
      h("strong", {}, decided.because),
      ` (${asked.destination} is ${decided.protocol})`,
    ),
    candidates.length
      ? table("Intentions that match", CANDIDATES, candidates)
      : h("p", {}, "No intention matches; the default policy decides."),
    readings.map(reading),
    decided.forwarded ? h("p", {}, "Forwarded as ", h("code", {}, decided.forwarded)) : null,
    (decided.notes ?? []).map((note) => h("p", { class: "quiet" }, note)),
    held(decided.held),
    recent(decided.recent),
    decided.suggestion
      ? [
          h("h3", {}, "The smallest intention that allows it"),
          h("p", { class: "quiet" }, decided.suggestion_why),
          command(decided.suggestion),
        ]
      : null,
    isRefused
      ? h(
          "div",
          { class: "row" },
          button("Allow…", async () => changed(await allow({ ...asked, suggested: decided.suggested })), { class: "primary" }),
        )
      : null,
  );
}

const CANDIDATES = [
  { name: "Intention", cell: (one) => h("code", {}, one.pair) },
  { name: "Says", cell: (one) => one.says },
  { name: "Precedence", number: true, cell: (one) => String(one.precedence) },
  { name: "Outcome", cell: (one) => (one.outcome === "governs" ? h("strong", {}, "governs") : one.outcome) },
  { name: "Revision", number: true, cell: (one) => String(one.revision) },
];

function reading({ path, permissions, action }) {
  const columns = [
    { name: "Permission", cell: (one) => h("code", {}, one.says) },
    { name: "Outcome", cell: (one) => one.outcome },
  ];
  return h(
    "section",
    {},
    h("h3", {}, "Path read as ", h("code", {}, path), ": ", verdict(action)),
    table(`Permissions for ${path}`, columns, permissions),
  );
}

function held(of) {
  if (!of) return null;
  const others = (of.by ?? []).filter((one) => !one.agrees);
  const gone = of.not_connected ?? [];
  return h(
    "section",
    {},
    h("p", {}, `${of.agree} of ${plural(of.sidecars, "connected sidecar")} of the called service enforce this.`),
    others.map((one) =>
      h("p", { class: "warns" }, `${one.instance} does not: it holds revision ${one.revision}. ${one.why ?? ""}`),
    ),
    gone.length ? h("p", { class: "quiet" }, `Not connected: ${gone.map((one) => one.instance).join(", ")}.`) : null,
  );
}

function recent(decisions) {
  if (!decisions?.length) return null;
  const columns = [
    { name: "When", cell: (one) => clock(one.at) },
    { name: "Verdict", cell: (one) => verdict(one.verdict) },
    { name: "Request", cell: (one) => [one.method, one.path].filter(Boolean).join(" ") || "connection" },
    { name: "Because", cell: (one) => one.because },
    { name: "Instance", cell: (one) => one.instance },
  ];
  return h("section", {}, h("h3", {}, "Last decisions"), table("Last decisions", columns, decisions, { most: 10 }));
}

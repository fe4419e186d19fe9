// Intentions: who may call whom. Every change is shown as a plan before it is made.

import { Failure, get, path as route } from "../api.js";
import { button, field, h, link as linkTo, replace, select } from "../dom.js";
import { explainBox } from "../explain.js";
import { plural, when } from "../format.js";
import { intentionForm } from "../intention-form.js";
import { live } from "../live.js";
import { failed, nothing, table, title, verdict } from "../parts.js";
import { permissionText, planned } from "../plan.js";
import { address } from "../router.js";
import { suggest } from "../suggest.js";

export const name = "Intentions";

const DEFAULTS = [
  ["deny", "deny"],
  ["audit", "audit: allow, and tell what deny would refuse"],
  ["allow", "allow"],
];

export function show({ root, route: { query }, signal }) {
  const view = {
    all: null,
    list: h("div"),
    note: h("p", { class: "quiet", role: "status" }),
    policy: h("div"),
    names: h("datalist", { id: "service-names" }),
  };
  view.filter = h("input", {
    type: "search",
    value: query.get("destination") ?? query.get("filter") ?? "",
    placeholder: "names, words",
    spellcheck: "false",
    autocomplete: "off",
    on: { input: () => fill(view) },
  });
  view.load = () => load(view, signal);
  const asked = Object.fromEntries(["source", "destination", "method", "path"].map((name) => [name, query.get(name) ?? ""]));
  replace(
    root,
    title(
      "Intentions",
      button("Add…", () => edit(view)),
      button("Suggest from what was seen…", () => suggest(view.load)),
    ),
    view.policy,
    h("div", { class: "row tools" }, field("Filter", view.filter)),
    view.note,
    view.list,
    h(
      "section",
      { "aria-labelledby": "explain" },
      h("h2", { id: "explain" }, "Explain a call"),
      explainBox("service-names", asked),
    ),
    view.names,
  );
  live.addEventListener(
    "change",
    () => {
      if (!root.contains(document.activeElement)) view.load();
    },
    { signal },
  );
  get("/v1/services", {}, signal).then(
    (services) =>
      replace(
        view.names,
        services.map((one) => h("option", { value: one.name })),
      ),
    () => {},
  );
  return view.load();
}

async function load(view, signal) {
  try {
    view.all = await get("/v1/intentions", {}, signal);
    fill(view);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Failure)) throw error;
    replace(view.list, failed(error));
  }
}

function fill(view) {
  if (!view.all) return;
  const { all } = view;
  const words = view.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (one) =>
    `${one.source} -> ${one.destination} ${one.action ?? "permissions"} ${one.mode ?? ""} ${one.description ?? ""} ${one.reason ?? ""}`.toLowerCase();
  const kept = all.intentions.filter((one) => words.every((word) => text(one).includes(word)));
  view.note.textContent = `${plural(kept.length, "intention")}${kept.length < all.intentions.length ? ` of ${all.intentions.length}` : ""}, revision ${all.revision}; what stands above governs before what stands below.`;
  replace(
    view.list,
    kept.length
      ? table("Intentions", columns(view), kept)
      : nothing(all.intentions.length ? "None has these words." : "There is none yet: the default policy decides."),
  );
  replace(view.policy, defaultPolicy(view));
}

function columns(view) {
  const service = (name) => (name === "*" ? h("code", {}, "*") : linkTo(address("service", [name]), name));
  return [
    { name: "Caller", of: (one) => one.source, cell: (one) => service(one.source) },
    { name: "Called", of: (one) => one.destination, cell: (one) => service(one.destination) },
    { name: "Says", of: (one) => one.action ?? "permissions", cell: (one) => saysCell(one) },
    { name: "Precedence", number: true, of: (one) => one.precedence, cell: (one) => String(one.precedence) },
    {
      name: "Set",
      of: (one) => one.created_at,
      cell: (one) => [
        when(one.created_at),
        h("small", { class: "block quiet" }, one.created_by, one.reason ? `: ${one.reason}` : ""),
      ],
    },
    { name: "Revision", number: true, of: (one) => one.revision, cell: (one) => String(one.revision) },
    { name: "", cell: (one) => h("span", { class: "actions" }, rowActions(view, one)) },
  ];
}

function saysCell(one) {
  const parts = one.action
    ? [verdict(one.action, one.action)]
    : h(
        "ul",
        { class: "permissions" },
        one.permissions.map((permission) => h("li", {}, h("code", {}, permissionText(permission)))),
        h("li", {}, `otherwise ${one.otherwise ?? "deny"}`),
      );
  return [
    parts,
    one.mode === "audit" ? [" ", verdict("audit", "audit only")] : null,
    one.expires_at ? h("small", { class: "block" }, `ends ${when(one.expires_at)}`) : null,
    one.description ? h("small", { class: "block quiet" }, one.description) : null,
  ];
}

function rowActions(view, one) {
  const pair = `${one.source} to ${one.destination}`;
  const remove = button("Delete…", () => deleteIntention(view, one), {
    "aria-label": `Delete ${pair}${one.expires_at ? ", temporary" : ""}`,
  });
  return one.expires_at ? [remove] : [button("Edit…", () => edit(view, one), { "aria-label": `Edit ${pair}` }), " ", remove];
}

async function edit(view, one) {
  if (await intentionForm(one, "service-names")) await view.load();
}

async function deleteIntention(view, one) {
  const name = `Delete ${one.source} -> ${one.destination}${one.expires_at ? ", temporary" : ""}`;
  const query = one.expires_at ? { temporary: "true" } : {};
  if (await planned(name, { method: "DELETE", path: route("intentions", one.source, one.destination), query })) await view.load();
}

function defaultPolicy(view) {
  const choice = select(DEFAULTS, view.all.default);
  const change = button("Change…", async () => {
    const body = { policy: choice.value };
    if (await planned(`Default policy ${choice.value}`, { method: "PUT", path: "/v1/default-policy", body })) await view.load();
    else choice.value = view.all.default;
  });
  return h("div", { class: "row" }, field("Where no intention matches", choice), change);
}

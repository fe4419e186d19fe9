// The form of one intention.

import { button, field, h, replace, select } from "./dom.js";
import { askThenPlan } from "./plan.js";

const PATHS = [
  ["", "any path"],
  ["path_prefix", "path starts with"],
  ["path_exact", "path is"],
  ["path_regex", "path matches"],
];

/** Edits `stored`, or makes a new one. Resolves with whether it was saved. */
export function intentionForm(stored, names) {
  const name = stored ? `Edit ${stored.source} -> ${stored.destination}` : "Add an intention";
  return askThenPlan(
    name,
    (close) => form(stored, names, close),
    (intention) => ({
      name: `${intention.source} -> ${intention.destination}`,
      change: { method: "PUT", path: "/v1/intentions", body: { intentions: [intention], merge: true } },
    }),
  );
}

function form(stored, names, close) {
  const side = (of) =>
    h("input", {
      type: "text",
      required: true,
      value: stored?.[of] ?? "",
      list: names,
      readonly: Boolean(stored),
      pattern: "\\*|[a-z0-9]([a-z0-9\\-]{0,61}[a-z0-9])?",
      title: "a service name, or *",
      autocomplete: "off",
      spellcheck: "false",
    });
  const source = side("source");
  const destination = side("destination");
  const what = select(
    [
      ["allow", "allow"],
      ["deny", "deny"],
      ["permissions", "permissions on HTTP requests"],
    ],
    stored ? (stored.action ?? "permissions") : "allow",
  );
  const mode = select(
    [
      ["enforce", "enforce"],
      ["audit", "audit: only tell what it would deny"],
    ],
    stored?.mode ?? "enforce",
  );
  const otherwise = select(["deny", "allow"], stored?.otherwise ?? "deny");
  const description = h("input", { type: "text", value: stored?.description ?? "" });
  const rows = h("ol", { class: "permission-rows" });
  const add = (permission) => rows.append(permissionRow(permission, (row) => row.remove()));
  (stored?.permissions ?? []).forEach(add);
  const permissions = h(
    "fieldset",
    {},
    h("legend", {}, "Permissions, the first that matches decides"),
    rows,
    button("Add a permission", () => add({ action: "allow" })),
    field("Where none matches", otherwise),
  );
  const switchKind = () => {
    permissions.hidden = what.value !== "permissions";
    if (!permissions.hidden && !rows.children.length) add({ action: "allow" });
  };
  what.addEventListener("change", switchKind);
  switchKind();
  const problem = h("p", { class: "failed", role: "alert", hidden: true });
  const read = () => {
    const intention = {
      source: source.value.trim(),
      destination: destination.value.trim(),
      mode: mode.value,
      meta: stored?.meta,
    };
    if (description.value) intention.description = description.value;
    if (what.value !== "permissions") return { ...intention, action: what.value };
    return { ...intention, permissions: [...rows.children].map((row) => row.read()), otherwise: otherwise.value };
  };
  const submit = (event) => {
    event.preventDefault();
    problem.hidden = true;
    try {
      close(read());
    } catch (error) {
      problem.hidden = false;
      replace(problem, error.message);
    }
  };
  return h(
    "form",
    { class: "stack", on: { submit } },
    h(
      "div",
      { class: "row" },
      field("Caller", source, "a service, or * for every one"),
      field("Called", destination, "a service, or * for every one"),
    ),
    h("div", { class: "row" }, field("Says", what), field("Mode", mode)),
    permissions,
    field("Description", description),
    problem,
    h("div", { class: "row" }, h("button", { type: "submit", class: "primary" }, "Show the plan")),
  );
}

/** One permission: the common criteria as fields, all others as JSON. */
function permissionRow({ action, methods = [], path_exact: exact, path_prefix: prefix, path_regex: regex, ...others }, remove) {
  const act = select(["allow", "deny"], action);
  const verbs = h("input", { type: "text", value: methods.join(", "), placeholder: "any, or GET, HEAD", spellcheck: "false" });
  const kind = select(
    PATHS,
    exact !== undefined ? "path_exact" : prefix !== undefined ? "path_prefix" : regex !== undefined ? "path_regex" : "",
  );
  const path = h("input", { type: "text", value: exact ?? prefix ?? regex ?? "", placeholder: "/v1/", spellcheck: "false" });
  const more = h("input", {
    type: "text",
    value: Object.keys(others).length ? JSON.stringify(others) : "",
    placeholder: '{"headers": […]}',
    spellcheck: "false",
  });
  const row = h(
    "li",
    {},
    h(
      "div",
      { class: "row" },
      field("Action", act),
      field("Methods", verbs),
      field("Path", kind),
      field("of", path),
      field("Headers, query, ports, JWT (JSON)", more),
      button("Remove", () => remove(row)),
    ),
  );
  row.read = () => {
    const permission = { action: act.value, ...criteria(more.value) };
    const named = verbs.value
      .split(/[\s,|]+/)
      .filter(Boolean)
      .map((verb) => verb.toUpperCase());
    if (named.length) permission.methods = named;
    if (kind.value) permission[kind.value] = path.value;
    return permission;
  };
  return row;
}

function criteria(text) {
  if (!text.trim()) return {};
  let read;
  try {
    read = JSON.parse(text);
  } catch (error) {
    throw new Error(`The other criteria are not JSON: ${error.message}`);
  }
  if (read === null || typeof read !== "object" || Array.isArray(read))
    throw new Error('The other criteria are a JSON object, such as {"ports": ["main"]}.');
  return read;
}

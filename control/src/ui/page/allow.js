// Allows a call that was denied: the whole pair or one kind of request, for good or for a time; with the plan first.

import { Failure, call, path as route } from "./api.js";
import { button, field, h, replace, select } from "./dom.js";
import { failed } from "./parts.js";
import { askThenPlan, permissionText } from "./plan.js";

const TIMES = [
  ["", "for good"],
  ["3600", "for 1 hour"],
  ["28800", "for 8 hours"],
  ["86400", "for 1 day"],
];

/**
 * Asks how much to allow of a call {source, destination, method?, shape?, verdict?}; `suggested` is the smallest intention, where the
 * evaluator named it. Resolves with whether it was done.
 */
export function allow(asked) {
  const name = `Allow ${asked.source} → ${asked.destination}`;
  return askThenPlan(
    name,
    (close) => choices(asked, close),
    ({ permissions, seconds }) => ({ name, change: permissions ? inPart(permissions) : wholly(asked, seconds) }),
  );
}

function wholly({ source, destination }, seconds) {
  return { method: "PUT", path: route("intentions", source, destination), body: { verb: "allow", expires_in_s: seconds } };
}

function inPart(intention) {
  return { method: "PUT", path: "/v1/intentions", body: { intentions: [intention], merge: true } };
}

function choices(asked, close) {
  const time = select(TIMES, "");
  const outcome = h("div");
  const options = [["all", `every call of ${asked.source} to ${asked.destination}`]];
  const shape = asked.shape ?? asked.path;
  const prefix = prefixOf(shape);
  if (asked.method) {
    options.push(["method", `${asked.method} requests only`]);
    if (prefix) options.push(["prefix", `${asked.method} of ${prefix}… only`]);
    if (asked.suggested?.permissions)
      options.push(["suggested", `this request only: ${permissionText(asked.suggested.permissions[0])}`]);
    else if (isWhole(shape)) options.push(["exact", `${asked.method} ${shape} only`]);
  }
  const much = h(
    "fieldset",
    {},
    h("legend", {}, "What"),
    options.map(([value, text], index) =>
      h("label", { class: "choice" }, h("input", { type: "radio", name: "much", value, checked: index === 0 }), text),
    ),
  );
  const chosen = () => much.querySelector("input:checked").value;
  much.addEventListener("change", () => {
    time.disabled = chosen() !== "all";
  });
  const next = async () => {
    try {
      if (chosen() === "suggested") {
        close({ permissions: asked.suggested });
        return;
      }
      const permission = permissionOf(chosen(), asked, prefix);
      if (permission) close({ permissions: await withPermission(asked, permission) });
      else close({ seconds: time.value ? Number(time.value) : undefined });
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      replace(outcome, failed(error));
    }
  };
  return h(
    "div",
    {},
    much,
    field("How long", time, "What is allowed in part is allowed for good."),
    h("div", { class: "row" }, button("Show the plan", next, { class: "primary" })),
    outcome,
  );
}

/** `/v1/invoices/` of `/v1/invoices/{id}`: what stands before the first part that varies. */
function prefixOf(shape) {
  if (!shape?.startsWith("/") || shape.includes("…")) return "";
  const at = shape.indexOf("{");
  const fixed = at < 0 ? shape.slice(0, shape.lastIndexOf("/") + 1) : shape.slice(0, at);
  return fixed.length > 1 && fixed.endsWith("/") ? fixed : "";
}

/** Whether a shape is a path as it was asked for. */
function isWhole(shape) {
  return Boolean(shape?.startsWith("/")) && !/[{…?]/.test(shape);
}

function permissionOf(much, { method, path, shape = path }, prefix) {
  if (much === "all") return null;
  const permission = { action: "allow", methods: [method] };
  if (much === "prefix") permission.path_prefix = prefix;
  if (much === "exact") permission.path_exact = shape;
  return permission;
}

/** The permanent intention of the pair with one permission more, which is judged first. */
async function withPermission({ source, destination, verdict }, permission) {
  const stored = await storedPair(source, destination);
  const {
    description,
    meta,
    mode,
    otherwise,
    action,
    permissions = [],
  } = stored.find((one) => !one.expires_at) ?? {
    // What only audit lets through goes on being let through.
    mode: verdict === "audit" ? "audit" : undefined,
  };
  // What the pair says so far it says of all other requests.
  return {
    source,
    destination,
    description,
    meta,
    mode,
    otherwise: action ?? otherwise,
    permissions: [permission, ...permissions],
  };
}

async function storedPair(source, destination) {
  try {
    return await call("GET", route("intentions", source, destination));
  } catch (error) {
    if (error.status === 404) return [];
    throw error;
  }
}

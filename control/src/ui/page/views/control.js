// The control plane: how it is, what `doctor` finds, who is behind.

import { Failure, get } from "../api.js";
import { h, link as linkTo, refill, replace } from "../dom.js";
import { count, when } from "../format.js";
import { facts, failed, health, nothing, table, title } from "../parts.js";
import { address } from "../router.js";
import { keepFresh } from "../seen.js";

export const name = "Control plane";

export function show({ root, signal }) {
  const overview = h("div");
  const doctor = h("div");
  replace(root, title("Control plane"), overview, h("h2", {}, "What doctor finds"), doctor);
  keepFresh(
    async () => {
      await part(overview, async () => overviewOf(await get("/v1/overview", {}, signal)));
      await part(doctor, async () => findingsOf(await get("/v1/doctor", {}, signal)));
    },
    signal,
    15_000,
  );
}

async function part(place, build) {
  try {
    refill(place, await build());
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Failure)) throw error;
    replace(place, failed(error));
  }
}

function overviewOf(status) {
  const { mesh, instances, behind, not_understood: notUnderstood } = status;
  const unconnected = instances.filter((one) => !one.connected);
  return [
    facts(
      ["Version", mesh.version],
      ["Started", when(status.started_at)],
      ["Trust domain", mesh.trust_domain],
      ["Datacenter", mesh.datacenter],
      ["Cluster", h("code", { class: "long" }, mesh.cluster_id)],
      ["Revision", status.revision],
      ["Epoch", mesh.epoch],
      ["Default policy", status.default],
      ["Intentions", count(status.intentions)],
      ["Services", count(status.services)],
      ["Sidecars connected", `${instances.length - unconnected.length} of ${instances.length}`],
    ),
    h("h2", {}, "Sidecars that are behind"),
    behind.length
      ? h(
          "ul",
          {},
          behind.map((id) => h("li", {}, h("code", {}, id))),
        )
      : nothing("None: every connected sidecar holds all changes."),
    notUnderstood.length
      ? [h("h2", {}, "Not understood, and so denied"), table("Not understood", NOT_UNDERSTOOD, notUnderstood)]
      : null,
    h("h2", {}, "Sidecars that are not connected"),
    unconnected.length ? table("Not connected", UNCONNECTED, unconnected) : nothing("None."),
  ];
}

const NOT_UNDERSTOOD = [
  { name: "Sidecar", of: (one) => one.instance, cell: (one) => h("code", {}, one.instance) },
  { name: "What", of: (one) => one.key, cell: (one) => h("code", {}, one.key) },
  { name: "Why", of: (one) => one.why },
];

const UNCONNECTED = [
  { name: "Instance", of: (one) => one.id, cell: (one) => h("code", {}, one.id) },
  { name: "Service", of: (one) => one.service, cell: (one) => linkTo(address("service", [one.service]), one.service) },
  { name: "Health", of: (one) => one.health, cell: (one) => health(one.health) },
  { name: "Since", of: (one) => one.since, cell: (one) => when(one.since) },
];

function findingsOf(findings) {
  const bad = findings.filter((one) => one.severity !== "ok");
  if (!bad.length) return nothing("Nothing is the matter.");
  const order = { error: 0, warning: 1 };
  bad.sort((a, b) => order[a.severity] - order[b.severity]);
  return h(
    "ul",
    { class: "findings" },
    bad.map((one) =>
      h(
        "li",
        {},
        h("p", {}, health(one.severity === "error" ? "critical" : "warning"), ` ${one.subject}: ${one.message}`),
        h("p", { class: "quiet" }, one.cure),
        h("small", { class: "quiet" }, one.code),
      ),
    ),
  );
}

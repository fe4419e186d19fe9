// One service: its instances, whom it calls, who calls it and who may, and its settings.

import { Failure, get, path as route } from "../api.js";
import { h, link as linkTo, refill, replace } from "../dom.js";
import { edgeTable } from "../edges.js";
import { bytes, clock, count, when } from "../format.js";
import { facts, failed, health, nothing, table, title } from "../parts.js";
import { says } from "../plan.js";
import { address } from "../router.js";
import { keepFresh } from "../seen.js";

export const name = "Service";

export function show({ root, route: { rest, query }, signal }) {
  const [of] = rest;
  const state = h("div");
  const traffic = h("div");
  const only = query.get("source") ?? "";
  replace(root, title(of, linkTo(address("graph", [], { around: of }), "In the graph")), state, traffic);
  const refresh = keepFresh(async () => {
    const results = await Promise.allSettled([
      get(route("services", of), {}, signal).then((detail) => refill(state, stateOf(detail))),
      trafficOf(of, only, signal).then((parts) =>
        refill(
          traffic,
          parts(() => refresh()),
        ),
      ),
    ]);
    results.forEach(({ reason }, index) => {
      if (!reason || reason.name === "AbortError") return;
      if (!(reason instanceof Failure)) throw reason;
      replace([state, traffic][index], failed(reason));
    });
  }, signal);
}

function stateOf(detail) {
  const { instances, registered = [], inbound, config } = detail;
  const present = instances.filter((one) => one.health !== "left");
  return [
    facts(
      ["Protocol", detail.protocol ?? "not declared"],
      ["Instances", count(present.length + registered.length)],
      ["Healthy", count([...present, ...registered].filter((one) => one.health === "healthy").length)],
      ["First SVID to end", firstEnd(present)],
      ["Upstreams", upstreamsOf(present)],
    ),
    h("h2", {}, "Instances"),
    instances.length ? table("Instances", INSTANCES, instances) : nothing("None with a sidecar."),
    registered.length ? [h("h3", {}, "Without a sidecar"), table("Instances without a sidecar", REGISTERED, registered)] : null,
    h("h2", {}, "Who may call it"),
    inbound.length ? table("Who may call it", INBOUND, inbound) : nothing("No intention names it; the default policy decides."),
    h("p", {}, linkTo(address("intentions", [], { destination: detail.name }), "Change who may")),
    h("h2", {}, "Settings"),
    config
      ? settingsOf(config)
      : nothing("None are set; ", h("code", {}, "meshctl service config apply -f FILE"), " sets some."),
  ];
}

/** What its sidecars are set up to call, whether they did or not. */
function upstreamsOf(instances) {
  const names = [...new Set(instances.flatMap((one) => one.upstreams ?? []))].sort();
  return names.length ? names.flatMap((name, at) => [at ? ", " : "", linkTo(address("service", [name]), name)]) : "none";
}

function firstEnd(instances) {
  const ends = instances
    .map((one) => one.svid_not_after)
    .filter(Boolean)
    .sort();
  return ends.length ? when(ends[0]) : "";
}

const INSTANCES = [
  { name: "Instance", of: (one) => one.id, cell: (one) => h("code", {}, one.id) },
  {
    name: "Health",
    of: (one) => one.health,
    cell: (one) => [
      health(one.health),
      (one.checks ?? [])
        .filter((check) => check.status !== "passing")
        .map((check) => h("small", { class: "block" }, `${check.id}: ${check.output ?? check.status}`)),
    ],
  },
  {
    name: "Sidecar",
    of: (one) => String(one.connected),
    cell: (one) => `${one.connected ? "connected" : "not connected"} since ${clock(one.since)}`,
  },
  { name: "Address", of: (one) => one.address ?? "", cell: (one) => one.address ?? "only calls" },
  {
    name: "SVID ends",
    of: (one) => one.svid_not_after ?? "",
    cell: (one) => h("span", { title: one.svid_not_after ?? "" }, when(one.svid_not_after)),
  },
  { name: "Revision", number: true, of: (one) => one.revision, cell: (one) => String(one.revision) },
  { name: "Version", of: (one) => one.version ?? "", cell: (one) => one.version ?? "–" },
  {
    name: "Host",
    of: (one) => one.node ?? "",
    cell: (one) => [one.node ?? "–", one.locality ? h("small", { class: "block quiet" }, one.locality) : null],
  },
  {
    name: "Tags",
    of: (one) => (one.tags ?? []).join(),
    cell: (one) => [...(one.tags ?? []), ...Object.entries(one.meta ?? {}).map(([key, value]) => `${key}=${value}`)].join(", "),
  },
];

const REGISTERED = [
  { name: "Instance", of: (one) => one.id, cell: (one) => h("code", {}, one.id) },
  { name: "Health", of: (one) => one.health, cell: (one) => health(one.health) },
  { name: "Address", of: (one) => one.address, cell: (one) => (one.port ? `${one.address}:${one.port}` : one.address) },
  { name: "Node", of: (one) => one.node },
];

const INBOUND = [
  { name: "Intention", of: (one) => `${one.source} -> ${one.destination}`, cell: (one) => h("code", {}, says(one)) },
  { name: "Precedence", number: true, of: (one) => one.precedence, cell: (one) => String(one.precedence) },
  {
    name: "Set",
    of: (one) => one.created_at,
    cell: (one) => [
      when(one.created_at),
      h("small", { class: "block quiet" }, one.created_by, one.reason ? `: ${one.reason}` : ""),
    ],
  },
];

function settingsOf({ settings, revision, created_at: at, created_by: by }) {
  const text = Object.entries(settings).map(([key, value]) => [
    key,
    typeof value === "object" ? h("code", {}, JSON.stringify(value)) : String(value),
  ]);
  return [facts(...text), h("p", { class: "quiet" }, `Revision ${revision}, set ${when(at)} by ${by}.`)];
}

/** Edges with methods and paths, both ways. */
async function trafficOf(of, only, signal) {
  const asked = (query) => get("/v1/edges", { since_s: 86_400, by: "edge", ...query }, signal);
  const [callers, calls] = await Promise.all([
    asked({ destination: of, source: only || undefined }),
    asked({ source: of, by: "pair" }),
  ]);
  return (changed) => [
    h("h2", {}, only ? `What ${only} calls of it` : "Who calls it"),
    only ? h("p", {}, linkTo(address("service", [of]), "All callers")) : null,
    callers.edges.length
      ? edgeTable("Calls of it", callers.edges, changed, { hide: only ? ["Caller", "Called"] : ["Called"], most: 50 })
      : nothing("Nobody in the last 24 hours."),
    h("h2", {}, "Whom it calls"),
    calls.edges.length
      ? edgeTable("Calls by it", calls.edges, changed, { hide: ["Caller"], most: 50 })
      : nothing("Nobody in the last 24 hours."),
    h(
      "p",
      { class: "quiet" },
      `Received ${bytes(total(callers.edges, "bytes_in"))}, sent ${bytes(total(callers.edges, "bytes_out"))}.`,
    ),
  ];
}

function total(rows, member) {
  return rows.reduce((sum, row) => sum + (row[member] ?? 0), 0);
}

// The authority and the certificates that it gave out.

import { Failure, get } from "../api.js";
import { h, link as linkTo, refill, replace } from "../dom.js";
import { clock, count, span, when } from "../format.js";
import { facts, failed, health, nothing, table, title } from "../parts.js";
import { address } from "../router.js";
import { keepFresh } from "../seen.js";

export const name = "Certificates";

export function show({ root, signal }) {
  const authority = h("div");
  const svids = h("div");
  replace(root, title("Certificates"), authority, h("h2", {}, "SVIDs of instances"), svids);
  keepFresh(
    async () => {
      await part(authority, async () => authorityOf(await get("/v1/authority", {}, signal)));
      await part(svids, async () => svidsOf((await get("/v1/overview", {}, signal)).instances));
    },
    signal,
    30_000,
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

function authorityOf(status) {
  const certificates = [
    ...status.roots.map((root) => ({ kind: "root", ...root })),
    { kind: "intermediate", ...status.intermediate },
  ];
  const columns = [
    { name: "Kind", of: (one) => one.kind },
    {
      name: "Ends",
      of: (one) => one.not_after,
      cell: (one) => [when(one.not_after), h("small", { class: "block quiet" }, clock(one.not_after))],
    },
    { name: "Since", of: (one) => one.not_before, cell: (one) => clock(one.not_before) },
    { name: "Origin", of: (one) => one.origin },
    { name: "Pin", of: (one) => one.pin, cell: (one) => h("code", { class: "long" }, one.pin) },
  ];
  return [
    facts(
      ["Trust domain", status.trust_domain],
      ["An SVID lasts", span(status.svid_ttl_s)],
      ["SVIDs that count", count(status.active_svids)],
      ["Revoked, not yet ended", count(status.revoked_svids)],
    ),
    h("h2", {}, "The authority"),
    table("Certificates of the authority", columns, certificates),
  ];
}

function svidsOf(instances) {
  if (!instances.length) return nothing("No instance is registered.");
  const columns = [
    { name: "Instance", of: (one) => one.id, cell: (one) => h("code", {}, one.id) },
    { name: "Service", of: (one) => one.service, cell: (one) => linkTo(address("service", [one.service]), one.service) },
    {
      name: "SVID ends",
      of: (one) => one.svid_not_after ?? "",
      cell: (one) => [when(one.svid_not_after), h("small", { class: "block quiet" }, clock(one.svid_not_after))],
    },
    { name: "Health", of: (one) => one.health, cell: (one) => health(one.health) },
    { name: "Sidecar", of: (one) => String(one.connected), cell: (one) => (one.connected ? "connected" : "not connected") },
  ];
  return table("SVIDs", columns, instances, { sortBy: { column: 2 } });
}

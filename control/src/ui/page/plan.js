// What a change of intentions would do, shown before it is done.

import { Failure, call } from "./api.js";
import { button, field, h, replace, say } from "./dom.js";
import { clock, count, millis, plural, rate, when } from "./format.js";
import { dialog, failed, verdict } from "./parts.js";

const WAIT_MS = 5000;
const CONFLICT = 409;

/** What a plan is closed with that is to be asked for otherwise. */
const BACK = "back";

/**
 * Asks in a dialog what to change, and shows the plan of that. «Back» leads from the plan to the dialog as it was left.
 * @param {string} name the title of the dialog
 * @param {(close: (wanted: any) => void) => Node} build its content, as `dialog` takes it
 * @param {(wanted: any) => {name: string, change: object}} planOf what `planned` is asked then
 * @returns whether it was done
 */
export async function askThenPlan(name, build, planOf) {
  let close;
  const content = build((wanted) => close(wanted));
  const reason = reasonField();
  for (;;) {
    const wanted = await dialog(name, (closing) => {
      close = closing;
      return content;
    });
    if (!wanted) return false;
    const { name: what, change } = planOf(wanted);
    const done = await shown(what, change, { reason, hasBack: true });
    if (done !== BACK) return Boolean(done);
  }
}

/**
 * Shows the plan of a change and carries it out when that is confirmed.
 * @param {string} name what the change is, as a title
 * @param {{method: string, path: string, body?: object, query?: object}} change a route that takes `dry_run` and `expected_revision`
 * @returns whether it was done
 */
export async function planned(name, change) {
  return Boolean(await shown(name, change, { reason: reasonField(), hasBack: false }));
}

function reasonField() {
  return h("input", { type: "text", maxlength: 500 });
}

function shown(name, change, { reason, hasBack }) {
  return dialog(name, (close) => {
    const content = h("div", { class: "plan" });
    const back = hasBack ? button("Back", () => close(BACK)) : null;
    show({ content, close, name, change, back, reason });
    return content;
  });
}

/** @param {{content: Element, close: Function, name: string, change: object, back: Element | null, reason: Element}} view */
async function show(view) {
  const { content, name, change, back, reason } = view;
  replace(content, h("p", { class: "quiet" }, "Working out what it would do…"));
  let plan;
  try {
    plan = await asked(change, { dry_run: true });
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    replace(content, failed(error), back);
    return;
  }
  const outcome = h("div");
  const save = button("Do it", () => carryOut(view, plan, save, outcome), { class: "primary" });
  const isEmpty = !hasChange(plan);
  replace(
    content,
    differences(plan),
    effects(plan),
    isEmpty ? h("p", {}, "Nothing would change.") : field("Reason, for the history", reason),
    h("div", { class: "row" }, isEmpty ? null : save, back),
    outcome,
  );
  say(`${name}: the plan is shown.`);
}

/** The change with more members: in its body, or in its query where it has none. */
function asked({ method, path, body, query }, more) {
  if (method !== "DELETE") return call(method, path, { body: { ...body, ...more } });
  return call(method, path, { query: { ...query, ...more, dry_run: more.dry_run ? "true" : undefined } });
}

async function carryOut(view, plan, save, outcome) {
  const { close, change, back, reason } = view;
  const since = { expected_revision: plan.base_revision, wait_ms: WAIT_MS, reason: reason.value || undefined };
  let answer;
  try {
    answer = await asked(change, since);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    replace(outcome, failed(error), error.status === CONFLICT ? again(view, save) : null);
    return;
  }
  const written = answer.written ?? answer;
  for (const control of [save, reason, back].filter(Boolean)) control.disabled = true;
  const done = button("Close", () => close(true), { class: "primary" });
  replace(
    outcome,
    h("p", { class: "done" }, `Done. ${inForce(written)}`),
    (written?.notes ?? []).map((note) => h("p", {}, note)),
    done,
  );
  say(`Done. ${inForce(written)}`);
  // However the dialog is closed now, the change is made.
  const around = outcome.closest("dialog");
  around.addEventListener("cancel", (event) => {
    event.preventDefault();
    close(true);
  });
  around.querySelector(".title button").addEventListener("click", () => close(true), { capture: true });
  done.focus();
}

/** Somebody else was faster. The plan was of what there was then; what was typed stays. */
function again(view, save) {
  save.disabled = true;
  return [
    h("p", {}, "Somebody else changed intentions meanwhile, and nothing of this was done."),
    button("Show the plan of what there is now", () => show(view), { class: "primary" }),
  ];
}

/** «in force on 3 of 3 sidecars after 4 ms» */
export function inForce(written) {
  const of = written?.in_force;
  if (!of) return written?.revision ? `Revision ${written.revision}.` : "";
  const gone = of.not_connected?.length ? ` Not connected: ${of.not_connected.map((one) => one.instance).join(", ")}.` : "";
  if (!of.concerned) return `No connected sidecar is concerned.${gone}`;
  const late = of.waiting_for?.length ? ` Waiting for ${of.waiting_for.join(", ")}.` : "";
  const ended = [
    of.closed ? plural(of.closed, "connection") : "",
    of.ended_requests ? plural(of.ended_requests, "request under way", "requests under way") : "",
  ].filter(Boolean);
  const closed = ended.length ? ` Ended ${ended.join(" and ")}.` : "";
  const where = `In force on ${of.acknowledged} of ${plural(of.concerned, "sidecar")} after ${millis(of.took_ms)}.`;
  return `${where}${closed}${late}${gone}`;
}

function hasChange(plan) {
  return plan.added.length + plan.changed.length + plan.removed.length > 0 || Boolean(plan.default);
}

/** What is added, changed and removed, as people read differences. */
export function differences(change) {
  const line = (sign, word, text) =>
    h(
      "li",
      { class: `diff ${word}` },
      h("span", { class: "sign", "aria-hidden": "true" }, sign),
      h("span", { class: "unseen" }, `${word}: `),
      h("code", {}, text),
    );
  const lines = [
    change.default
      ? [line("−", "removed", `default: ${change.default[0]}`), line("+", "added", `default: ${change.default[1]}`)]
      : [],
    change.removed.map((intention) => line("−", "removed", says(intention))),
    change.changed.map(([before, after]) => [line("−", "removed", says(before)), line("+", "added", says(after))]),
    change.added.map((intention) => line("+", "added", says(intention))),
  ].flat(2);
  return lines.length ? h("ul", { class: "diffs" }, lines) : null;
}

/** An intention in one line. */
export function says(intention) {
  const pair = `${intention.source} -> ${intention.destination}`;
  const what =
    intention.action ??
    `${(intention.permissions ?? []).map(permissionText).join("; ")}; otherwise ${intention.otherwise ?? "deny"}`;
  const audit = intention.mode === "audit" ? ", audit" : "";
  const until = intention.expires_at ? `, until ${intention.expires_at}` : "";
  return `${pair}: ${what}${audit}${until}${intention.description ? ` (${intention.description})` : ""}`;
}

/** A permission in words. */
export function permissionText(permission) {
  const { action, methods, path_exact: exact, path_prefix: prefix, path_regex: regex, ...rest } = permission;
  const path = exact ?? (prefix && `${prefix}*`) ?? (regex && `regex ${regex}`);
  const more = Object.keys(rest).filter((name) => rest[name]?.length);
  return [action, methods?.join("|"), path, more.length ? `with ${more.join(", ")}` : ""].filter(Boolean).join(" ");
}

function effects(plan) {
  const of = plan.effects;
  const parts = [];
  if (of) {
    const list = (title, kind, rows = []) =>
      rows.length
        ? h(
            "section",
            {},
            h("h3", {}, verdict(kind, title), ` ${plural(rows.length, "edge")}`),
            h("ul", { class: "effects" }, rows.slice(0, 50).map(effect)),
            rows.length > 50 ? h("p", { class: "quiet" }, `and ${rows.length - 50} more`) : null,
          )
        : null;
    parts.push(
      list("cut off", "deny", of.newly_denied),
      list("let through", "allow", of.newly_allowed),
      list("would be denied, let through by audit", "audit", of.newly_audited ?? of.newly_would_deny),
    );
    const { connections = 0, requests = 0 } = of.closes ?? {};
    if (connections + requests) {
      parts.push(
        h(
          "p",
          { class: "warns" },
          `Closes now: ${plural(connections, "connection")} and ${plural(requests, "request")} under way.`,
        ),
      );
    }
    if (parts.every((part) => part === null))
      parts.push(h("p", { class: "quiet" }, `No call that was seen changes (${plural(of.edges ?? 0, "edge")} looked at).`));
    if (of.edges) parts.push(h("p", { class: "quiet" }, `Judged by what was seen from ${clock(of.since)} on.`));
    const notes = { class: of.left_out ? "warns" : "quiet" };
    parts.push((of.notes ?? []).map((note) => h("p", notes, note)));
  }
  for (const { intention, permission, by, why } of plan.shadowed ?? []) {
    const which = permission === undefined ? intention : `${intention}, permission ${permission}`;
    parts.push(h("p", { class: "warns" }, `Decides nothing: ${which}: ${by} ${why}.`));
  }
  if (plan.never_matched?.length) {
    parts.push(h("p", { class: "quiet" }, `About services that nobody knows: ${plan.never_matched.join(", ")}.`));
  }
  for (const one of plan.not_understood_by ?? [])
    parts.push(h("p", { class: "warns" }, `Not understood, and so denied: ${one}`));
  return parts.flat().some(Boolean)
    ? h("div", { class: "effects" }, h("h3", {}, "What it does to the calls that were seen"), parts)
    : null;
}

function effect({ seen, edge, before, after }) {
  const row = seen ?? edge;
  const what = [row.method, row.shape].filter(Boolean).join(" ");
  return h(
    "li",
    {},
    h("strong", {}, `${row.source} → ${row.destination}`),
    what ? [" ", h("code", {}, what)] : null,
    ` ${count(row.count)} times, ${rate(row.rate)} now, last ${when(row.last_seen)}`,
    h("br"),
    h("span", { class: "quiet" }, `${before} → ${after}`),
  );
}

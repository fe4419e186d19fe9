// Keys and values. A value is saved only if it is still the one that was read.

import { Failure, call, get, send } from "../api.js";
import { button, field, h, link as linkTo, replace } from "../dom.js";
import { bytes } from "../format.js";
import { dialog, facts, failed, nothing, table, title } from "../parts.js";
import { address, go } from "../router.js";

export const name = "Keys";

/** Bytes of a value that is not text that are shown. */
const MOST_HEX = 4096;

/** The whole key is one segment: a browser would take `..` between slashes for the way up, and ask for another key. */
function route(key) {
  if (key === "." || key === "..") throw new Failure(400, `A browser cannot ask for the key ${key}.`, "`meshctl kv get` can.");
  return `/v1/kv/${encodeURIComponent(key)}`;
}

const toKey = (key) => address("kv", key.split("/"));

export function show({ root, route: { rest }, signal }) {
  const key = rest.join("/").replace(/^\/+/, "");
  const content = h("div");
  replace(root, title("Keys"), crumbs(key), content);
  return guarded(content, () => (key === "" || key.endsWith("/") ? list(content, key, signal) : edit(content, key, signal)));
}

async function guarded(content, act) {
  try {
    await act();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Failure)) throw error;
    replace(content, failed(error));
  }
}

function crumbs(key) {
  const parts = key.split("/").filter((part, index, all) => part !== "" || index < all.length - 1);
  const isTree = key === "" || key.endsWith("/");
  const links = parts.map((part, index) => {
    const isLast = index === parts.length - 1;
    const upTo = `${parts.slice(0, index + 1).join("/")}${isLast && !isTree ? "" : "/"}`;
    return h("li", {}, h("a", { href: `#${toKey(upTo)}`, "aria-current": isLast ? "page" : null }, part || "(empty)"));
  });
  return h(
    "nav",
    { "aria-label": "Where in the keys" },
    h("ol", { class: "crumbs" }, h("li", {}, linkTo("/kv", "all keys")), links),
  );
}

async function list(content, prefix, signal) {
  let keys = [];
  try {
    keys = (await get(route(prefix), { keys: true, separator: "/" }, signal)) ?? [];
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  const name = h("input", { type: "text", required: true, value: prefix, autocomplete: "off", spellcheck: "false" });
  const add = h(
    "form",
    {
      class: "row",
      on: {
        submit: (event) => {
          event.preventDefault();
          go(toKey(name.value.trim().replace(/^\/+/, "")));
        },
      },
    },
    field("New key", name),
    h("button", { type: "submit" }, "Add"),
  );
  const rows = keys.filter((key) => key !== prefix);
  const columns = [
    { name: "Key", of: (key) => key, cell: (key) => h("a", { href: `#${toKey(key)}` }, key.slice(prefix.length)) },
    { name: "Kind", of: (key) => (key.endsWith("/") ? "folder" : "value") },
  ];
  replace(content, rows.length ? table("Keys", columns, rows) : nothing("No key begins so."), add);
}

/** One key as it is now, or undefined. Its flags are text: they may be more than a number holds here. */
async function read(key, signal) {
  try {
    const text = await (await send("GET", route(key), { signal })).text();
    return { ...JSON.parse(text)[0], Flags: /"Flags":\s*(\d+)/.exec(text)?.[1] ?? "0" };
  } catch (error) {
    if (error.status === 404 && error.message.startsWith("The control plane answered")) return undefined;
    throw error;
  }
}

/** Shows a key; with `mine`, what somebody typed {text, flags} in place of what is stored. */
async function edit(content, key, signal, mine) {
  const entry = await read(key, signal);
  const value = textOf(entry?.Value);
  const isReadOnly = value.isBinary && !mine;
  const text = h("textarea", { rows: 14, spellcheck: "false", value: mine?.text ?? value.text, readonly: isReadOnly });
  const flags = h("input", { type: "number", min: 0, step: 1, value: mine?.flags ?? entry?.Flags ?? "0" });
  const outcome = h("div", { role: "status" });
  const again = (typed) => guarded(content, () => edit(content, key, signal, typed));
  const typed = () => ({ text: text.value, flags: flags.value });
  const save = button(
    "Save",
    () =>
      guarded(outcome, async () => {
        const done = await (
          await send("PUT", route(key), { query: { cas: entry?.ModifyIndex ?? 0, flags: flags.value || 0 }, body: text.value })
        ).json();
        if (done) {
          await again();
          replace(content.querySelector("[role=status]"), h("p", { class: "done" }, "Saved."));
        } else await conflict(outcome, key, "saved", again, isReadOnly ? null : typed);
      }),
    { class: "primary" },
  );
  const remove = button("Delete…", () =>
    guarded(outcome, async () => {
      if (!(await confirmed(`Delete ${key}`))) return;
      const done = await call("DELETE", route(key), { query: { cas: entry.ModifyIndex } });
      if (done) go(toKey(key.slice(0, key.lastIndexOf("/") + 1)));
      else await conflict(outcome, key, "deleted", again, isReadOnly ? null : typed);
    }),
  );
  replace(
    content,
    entry
      ? facts(
          ["Changed at revision", entry.ModifyIndex],
          ["Made at revision", entry.CreateIndex],
          ["Size", bytes(value.size)],
          ["Locked", entry.Session ? `by session ${entry.Session}` : ""],
          ["Lock count", entry.LockIndex || ""],
        )
      : nothing("This key is not there yet; saving makes it."),
    isReadOnly
      ? h("p", { class: "warns" }, "The value is not text. It is shown as hexadecimal and cannot be changed here.")
      : null,
    entry?.Session ? h("p", { class: "warns" }, "A session holds the lock of this key; saving does not ask it.") : null,
    field("Value", text),
    field("Flags", flags, "a number that programs give a meaning"),
    h("div", { class: "row" }, isReadOnly ? null : save, entry ? remove : null),
    outcome,
  );
}

/** Somebody else was faster: both values are shown, and nothing is lost. */
async function conflict(outcome, key, done, again, typed) {
  const now = await read(key);
  replace(
    outcome,
    h(
      "p",
      { class: "failed", role: "alert" },
      now
        ? `This key was changed at revision ${now.ModifyIndex}, after it was read here. Nothing was ${done}.`
        : `This key was deleted after it was read here. Nothing was ${done}.`,
    ),
    now ? [h("h2", {}, "What it says now"), h("pre", { tabindex: 0 }, textOf(now.Value).text)] : null,
    h(
      "div",
      { class: "row" },
      button("Take what it says now", () => again()),
      typed ? button("Keep mine, to save over it", () => again(typed())) : null,
    ),
  );
}

function confirmed(name) {
  return dialog(name, (close) =>
    h(
      "div",
      {},
      h("p", {}, "It is gone from the store then."),
      h(
        "div",
        { class: "row" },
        button("Delete", () => close(true), { class: "primary" }),
        button("Keep it", () => close(false)),
      ),
    ),
  );
}

/** Base64 to text, or to hexadecimal where it is none. */
function textOf(base64) {
  const raw = Uint8Array.from(atob(base64 ?? ""), (character) => character.charCodeAt(0));
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw);
    // A text field would change these ends of lines.
    if (!text.includes("\r") && !text.includes("\0")) return { text, isBinary: false, size: raw.length };
  } catch {
    // It is shown below.
  }
  const hex = Array.from(raw.slice(0, MOST_HEX), (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  const more = raw.length > MOST_HEX ? `\n… and ${raw.length - MOST_HEX} bytes more` : "";
  return { text: hex + more, isBinary: true, size: raw.length };
}

// The page: who is logged in, which view is shown, and what is heard of denials.

import { get, refused, useToken } from "./api.js";
import { h, replace } from "./dom.js";
import { live } from "./live.js";
import { route } from "./router.js";
import * as certificates from "./views/certificates.js";
import * as control from "./views/control.js";
import * as graph from "./views/graph.js";
import * as history from "./views/history.js";
import * as intentions from "./views/intentions.js";
import * as kv from "./views/kv.js";
import * as liveView from "./views/live.js";
import { askForToken } from "./views/login.js";
import * as service from "./views/service.js";
import * as services from "./views/services.js";

const VIEWS = { graph, services, intentions, live: liveView, history, kv, certificates, control };
const ALARM_PAUSE_MS = 5000;

const at = (id) => document.getElementById(id);
let leaving = new AbortController();
let isIn = false;

function start() {
  setTheme();
  at("skip").addEventListener("click", (event) => {
    event.preventDefault();
    at("main").focus();
  });
  at("leave").addEventListener("click", () => leave());
  refused.addEventListener("refused", ({ detail }) => {
    if (isIn) leave(detail);
  });
  addEventListener("hashchange", () => {
    if (isIn) show(true);
  });
  listenForDenials();
  leave();
}

function leave(why) {
  isIn = false;
  useToken("");
  leaving.abort();
  live.stop();
  live.decisions.length = 0;
  document.querySelectorAll("dialog").forEach((dialog) => dialog.close());
  at("top").hidden = true;
  document.title = "Postern";
  askForToken(at("main"), enter, why);
}

function enter() {
  performance.mark("logged-in");
  isIn = true;
  at("top").hidden = false;
  live.denials = 0;
  live.start();
  get("/v1/mesh").then(
    (mesh) => {
      at("mesh").textContent = at("mesh").title = `${mesh.trust_domain} · ${mesh.datacenter}`;
    },
    () => {},
  );
  show(true);
}

async function show(moveFocus) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const now = route();
  const view = now.name === "service" ? service : (VIEWS[now.name] ?? graph);
  at("main").dataset.view = now.name;
  menu(view);
  document.title = `${now.name === "service" ? now.rest[0] : view.name} – Postern`;
  const root = replace(at("main"));
  try {
    const shown = view.show({ root, route: now, signal });
    if (moveFocus) root.querySelector("h1")?.focus();
    await shown;
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  }
}

function menu(current) {
  const entries = Object.entries(VIEWS).map(([path, view]) => {
    const isCurrent = view === current || (current === service && view === services);
    const link = h("a", { href: `#/${path}`, "aria-current": isCurrent ? "page" : null }, view.name);
    if (view === liveView) link.append(h("span", { id: "denials", class: "badge" }));
    return h("li", {}, link);
  });
  replace(at("views"), entries);
  countDenials();
}

/** Those since the live view was left. */
function countDenials() {
  if (at("main").dataset.view === "live") live.denials = 0;
  const badge = at("denials");
  if (!badge) return;
  badge.textContent = live.denials ? ` ${live.denials > 999 ? "999+" : live.denials}` : "";
  badge.setAttribute("aria-label", live.denials ? `${live.denials} denials since it was looked at` : "");
  badge.toggleAttribute("hidden", !live.denials);
}

/** Denials are said in few words and seldom: a burst is one sentence. */
function listenForDenials() {
  const heard = new Map();
  let timer;
  const tell = () => {
    timer = undefined;
    const texts = [...heard]
      .slice(0, 3)
      .map(([pair, { count, because }]) => `${pair} denied ${count > 1 ? `${count} times` : "once"}: ${because}.`);
    if (heard.size > 3) texts.push(`And ${heard.size - 3} other pairs.`);
    at("alarm").replaceChildren(h("p", {}, texts.join(" ")));
    heard.clear();
  };
  live.addEventListener("decision", ({ detail }) => {
    countDenials();
    if (detail.verdict !== "deny") return;
    const pair = `${detail.source} to ${detail.destination}`;
    heard.set(pair, { count: (heard.get(pair)?.count ?? 0) + (detail.count ?? 1), because: detail.because });
    timer ??= setTimeout(tell, ALARM_PAUSE_MS);
  });
}

/** As the system has it, until the button says otherwise; that is forgotten with the page. */
function setTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const apply = () => {
    const isDark = chosen ?? dark.matches;
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
    at("theme").textContent = isDark ? "Light" : "Dark";
  };
  at("theme").addEventListener("click", () => {
    chosen = !(chosen ?? dark.matches);
    apply();
  });
  dark.addEventListener("change", apply);
  apply();
}

start();

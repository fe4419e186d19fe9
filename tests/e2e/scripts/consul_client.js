// Every call of keys, sessions and transactions that the npm package `consul` offers, decoded by it.
// Usage: consul_client.js HOST PORT TOKEN NODE
const assert = require("assert");
const Consul = require("consul");

const [host, port, token, node] = process.argv.slice(2);
const consul = new Consul({ host, port, defaults: { token } });
const refused = (promise, status) =>
  promise.then(
    () => assert.fail(`expected ${status}`),
    (error) => assert.strictEqual(error.statusCode ?? error.response?.statusCode, status, error.message),
  );

// The library gives an answer of `false` as undefined.
async function keys() {
  assert.strictEqual(await consul.kv.get("js/none"), undefined);
  assert.strictEqual(await consul.kv.set("js/a b/ü", "value"), true);
  const pair = await consul.kv.get("js/a b/ü");
  assert.deepStrictEqual([pair.Key, pair.Value, pair.Flags, pair.LockIndex], ["js/a b/ü", "value", 0, 0]);
  assert.strictEqual(await consul.kv.set({ key: "js/flags", value: "x", flags: 42 }), true);
  assert.strictEqual((await consul.kv.get("js/flags")).Flags, 42);
  assert.ok(!(await consul.kv.set({ key: "js/flags", value: "y", cas: "0" })));
  assert.strictEqual(await consul.kv.set({ key: "js/flags", value: "y", cas: (await consul.kv.get("js/flags")).ModifyIndex }), true);
  assert.strictEqual((await consul.kv.get({ key: "js/flags", raw: true })).toString(), "y");
  assert.strictEqual((await consul.kv.get({ key: "js/", recurse: true })).length, 2);
  assert.deepStrictEqual(await consul.kv.keys("js/"), ["js/a b/ü", "js/flags"]);
  assert.deepStrictEqual(await consul.kv.keys({ key: "js/", separator: "/" }), ["js/a b/", "js/flags"]);
  await consul.kv.del({ key: "js/flags", cas: "1" });
  assert.strictEqual((await consul.kv.keys("js/")).length, 2);
  await consul.kv.del("js/flags");
  assert.strictEqual((await consul.kv.keys("js/")).length, 1);
  await consul.kv.del({ key: "js/", recurse: true });
  assert.strictEqual(await consul.kv.get({ key: "js/", recurse: true }), undefined);
}

async function sessions() {
  const { ID: id } = await consul.session.create({ name: "js", ttl: "30s", lockdelay: "1s", behavior: "release", node });
  const info = await consul.session.info(id);
  assert.deepStrictEqual([info.ID, info.Name, info.TTL, info.Behavior, info.Node], [id, "js", "30s", "release", node]);
  assert.ok((await consul.session.list()).some((session) => session.ID === id));
  assert.ok((await consul.session.node(node)).some((session) => session.ID === id));
  assert.strictEqual((await consul.session.renew(id))[0].ID, id);
  assert.strictEqual(await consul.kv.set({ key: "js/lock", value: "me", acquire: id }), true);
  const { ID: other } = await consul.session.create({ node });
  assert.ok(!(await consul.kv.set({ key: "js/lock", value: "you", acquire: other })));
  assert.strictEqual((await consul.kv.get("js/lock")).Session, id);
  assert.strictEqual(await consul.kv.set({ key: "js/lock", value: "free", release: id }), true);
  assert.strictEqual(await consul.kv.set({ key: "js/lock", value: "you", acquire: other }), true);
  await consul.session.destroy(other);
  await consul.session.destroy(id);
  assert.strictEqual((await consul.kv.get("js/lock")).Session, undefined);
  await refused(consul.session.renew(id), 404);
  await refused(consul.session.create({ ttl: "1ms", node }), 400);
}

async function transactions() {
  const value = Buffer.from("1").toString("base64");
  const done = await consul.transaction.create([
    { KV: { Verb: "set", Key: "js/t1", Value: value } },
    { KV: { Verb: "set", Key: "js/t2", Value: value } },
    { KV: { Verb: "get", Key: "js/t1" } },
  ]);
  assert.strictEqual(done.Errors, null);
  assert.strictEqual(done.Results[2].KV.Value, value);
  await refused(consul.transaction.create([{ KV: { Verb: "check-not-exists", Key: "js/t1" } }]), 409);
}

// The library's own watch: blocking queries one after the other.
async function watch() {
  await consul.kv.set("js/watched", "0");
  const seen = [];
  const following = consul.watch({ method: consul.kv.get, options: { key: "js/watched" }, backoffFactor: 1000 });
  await new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`saw only ${seen}`)), 30000);
    following.on("error", reject);
    following.on("change", (pair) => {
      seen.push(pair.Value);
      if (pair.Value === "3") {
        clearTimeout(late);
        resolve();
      } else {
        consul.kv.set("js/watched", String(Number(pair.Value) + 1));
      }
    });
  });
  following.end();
  assert.deepStrictEqual(seen, ["0", "1", "2", "3"]);
}

async function refusals() {
  const stranger = new Consul({ host, port });
  await refused(stranger.kv.get("js/a"), 403);
  await refused(stranger.session.list(), 403);
  await refused(consul.kv.get({ key: "js/a", dc: "elsewhere" }), 500);
  assert.match(await consul.status.leader(), /:\d+$/);
  assert.strictEqual((await consul.status.peers()).length, 1);
}

(async () => {
  for (const part of [keys, sessions, transactions, watch, refusals]) {
    await part();
  }
  console.log(JSON.stringify({ ok: true }));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});

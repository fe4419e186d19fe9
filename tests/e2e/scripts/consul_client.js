// Every call of keys, sessions, transactions, agent, catalog, health, prepared queries, events and the bootstrap of access that the npm package `consul` offers, decoded by it.
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

async function agents() {
  const self = await consul.agent.self();
  assert.strictEqual(self.Config.NodeName, node);
  assert.strictEqual((await consul.agent.members())[0].Name, node);
  await consul.agent.service.register({
    name: "js-web", id: "js-web-1", tags: ["v1"], address: "127.0.0.1", port: 8000, meta: { team: "a" }, check: { ttl: "1h", status: "passing" },
  });
  const services = await consul.agent.service.list();
  assert.deepStrictEqual([services["js-web-1"].Service, services["js-web-1"].Port, services["js-web-1"].Tags], ["js-web", 8000, ["v1"]]);
  await consul.agent.check.register({ name: "js", id: "js", serviceid: "js-web-1", ttl: "1h", status: "passing" });
  assert.ok((await consul.agent.check.list()).js);
  for (const [verb, status] of [["warn", "warning"], ["fail", "critical"], ["pass", "passing"]]) {
    await consul.agent.check[verb]({ id: "js", note: `it is ${verb}` });
    const check = (await consul.agent.check.list()).js;
    assert.deepStrictEqual([check.Status, check.Output], [status, `it is ${verb}`]);
  }
  await consul.agent.check.deregister("js");
  await consul.agent.service.maintenance({ id: "js-web-1", enable: true, reason: "js" });
  assert.strictEqual((await consul.health.service({ service: "js-web", passing: true })).length, 0);
  await consul.agent.service.maintenance({ id: "js-web-1", enable: false });
  await consul.agent.maintenance({ enable: true, reason: "js" });
  await consul.agent.maintenance(false);
  await refused(consul.agent.join("127.0.0.1"), 501);
  await refused(consul.agent.forceLeave("n"), 501);
  await refused(consul.agent.reload(), 501);
}

async function catalogAndHealth() {
  await consul.catalog.register({
    node: "js-node", address: "10.9.9.9", service: { service: "js-db", id: "js-db-1", port: 5432, tags: ["primary"] },
    check: { checkid: "js-c", name: "c", status: "passing", serviceid: "js-db-1", node: "js-node" },
  });
  assert.deepStrictEqual(await consul.catalog.datacenters(), ["dc1"]);
  assert.ok((await consul.catalog.node.list()).some((found) => found.Node === "js-node"));
  assert.strictEqual((await consul.catalog.node.services("js-node")).Services["js-db-1"].Port, 5432);
  assert.deepStrictEqual((await consul.catalog.service.list())["js-db"], ["primary"]);
  assert.strictEqual((await consul.catalog.service.nodes("js-db"))[0].ServiceID, "js-db-1");
  assert.deepStrictEqual(await consul.catalog.connect.nodes("js-db"), []);
  assert.strictEqual((await consul.health.node("js-node"))[0].CheckID, "js-c");
  assert.strictEqual((await consul.health.checks("js-db"))[0].Status, "passing");
  assert.strictEqual((await consul.health.service({ service: "js-db", passing: true, tag: "primary" }))[0].Node.Address, "10.9.9.9");
  assert.ok((await consul.health.state("passing")).some((check) => check.CheckID === "js-c"));
}

// The library sends its token beside a new query, not with the request: as the query's own. With a header it is the caller's.
const writer = new Consul({ host, port, headers: { "x-consul-token": token } });

async function queries() {
  const { ID: query } = await writer.query.create({ name: "js-find", service: { service: "js-db", onlypassing: true }, dns: { ttl: "5s" } });
  assert.strictEqual((await consul.query.get(query)).Service.Service, "js-db");
  assert.ok((await consul.query.list()).some((found) => found.ID === query));
  const answer = await consul.query.execute("js-find");
  assert.deepStrictEqual([answer.Service, answer.DNS.TTL, answer.Nodes[0].Service.ID], ["js-db", "5s", "js-db-1"]);
  await writer.query.update({ query, name: "js-find", service: { service: "js-db", tags: ["none"] } });
  assert.deepStrictEqual((await consul.query.execute("js-find")).Nodes, []);
  const template = { name: "js-geo-", template: { type: "name_prefix_match", regexp: "^js-geo-(.*)$" }, service: { service: "${match(1)}" } };
  const { ID: made } = await writer.query.create(template);
  // The library takes the first of a list, and the answer is none.
  const explained = await fetch(`http://${host}:${port}/v1/query/js-geo-js-db/explain`, { headers: { "x-consul-token": token } });
  assert.strictEqual((await explained.json()).Query.Service.Service, "js-db");
  await consul.query.destroy(made);
  await consul.query.destroy(query);
  await refused(consul.query.execute("js-find"), 404);
  await consul.catalog.deregister({ node: "js-node" });
  assert.deepStrictEqual(await consul.catalog.service.nodes("js-db"), []);
  await consul.agent.service.deregister("js-web-1");
}

async function eventsAndAccess() {
  const fired = await consul.event.fire({ name: "js-deploy", payload: "v2", service: "js-.*" });
  assert.deepStrictEqual([fired.Name, fired.Payload, fired.ServiceFilter], ["js-deploy", "v2", "js-.*"]);
  await consul.event.fire("js-other", "x");
  const listed = await consul.event.list("js-deploy");
  assert.deepStrictEqual(listed.map((event) => [event.ID, event.Payload]), [[fired.ID, "v2"]]);
  // Once, and for the operator alone.
  const management = await consul.acl.bootstrap();
  assert.ok((await new Consul({ host, port, defaults: { token: management.SecretID } }).session.list()).length >= 0);
  await refused(consul.acl.bootstrap(), 403);
  await refused(consul.acl.replication(), 501);
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
  for (const part of [keys, sessions, transactions, watch, agents, catalogAndHealth, queries, eventsAndAccess, refusals]) {
    await part();
  }
  console.log(JSON.stringify({ ok: true }));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});

// A client of an independent OPC UA stack: it has one part judged, and prints the event as JSON.
const [endpointUrl, policy, certificateFile, privateKeyFile, userName, password, pki] =
  process.argv.slice(2);
const opcua = require("node-opcua-client");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");

const FIELDS = ["EventType", "MeasId", "PartId", "ResultId", "ResultState", "ResultContent"];

async function main() {
  const manager = new OPCUACertificateManager({
    rootFolder: pki, automaticallyAcceptUnknownCertificate: true,
  });
  await manager.initialize();
  const client = opcua.OPCUAClient.create({
    applicationUri: process.env.APPLICATION_URI,
    securityMode: opcua.MessageSecurityMode.SignAndEncrypt,
    securityPolicy: opcua.SecurityPolicy[policy],
    certificateFile, privateKeyFile, clientCertificateManager: manager,
    endpointMustExist: false, connectionStrategy: { maxRetry: 0 },
  });
  await client.connect(endpointUrl);
  const session = await client.createSession({
    type: opcua.UserTokenType.UserName, userName, password,
  });
  const automatic = "ns=1;s=top.VisionStateMachine.AutomaticModeStateMachine";
  for (;;) {
    const state = await session.read({
      nodeId: automatic + ".CurrentState", attributeId: opcua.AttributeIds.Value,
    });
    if (state.statusCode.isGood() && state.value.value.text === "Ready") break;
    await new Promise((next) => setTimeout(next, 50));
  }
  const spaces = await session.readNamespaceArray();
  const space = spaces.indexOf("http://opcfoundation.org/UA/MachineVision");
  const subscription = await session.createSubscription2({
    requestedPublishingInterval: 20, requestedLifetimeCount: 1000,
    requestedMaxKeepAliveCount: 20, publishingEnabled: true,
  });
  const filter = opcua.constructEventFilter(
    FIELDS.map((name) => (name === "EventType" ? name : `${space}:${name}`)),
    opcua.ofType(`ns=${space};i=1024`),
  );
  const item = await subscription.monitor(
    { nodeId: "ns=1;s=top", attributeId: opcua.AttributeIds.EventNotifier },
    { samplingInterval: 0, queueSize: 100, discardOldest: true, filter },
    opcua.TimestampsToReturn.Both,
  );
  const event = new Promise((done) => item.on("changed", done));
  const make = (type, fields) =>
    session.constructExtensionObject(opcua.resolveNodeId(`ns=${space};i=${type}`), fields);
  const structure = async (type, fields) => ({
    dataType: opcua.DataType.ExtensionObject, value: await make(type, fields),
  });
  const started = await session.call({
    objectId: automatic,
    methodId: automatic + ".StartSingleJob",
    inputArguments: [
      await structure(3015, { id: "peer:1" }),
      await structure(3004, { id: "part-9" }),
      await structure(3002, { id: "r" }),
      await structure(3003, { id: "" }),
      { dataType: opcua.DataType.Variant, arrayType: opcua.VariantArrayType.Array, value: [] },
    ],
  });
  const heard = await event;
  console.log(JSON.stringify({
    status: started.statusCode.name,
    job: started.outputArguments.map((one) => one.value),
    event: Object.fromEntries(FIELDS.map((name, at) => [name, heard[at].value])),
  }));
  await session.close();
  await client.disconnect();
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });

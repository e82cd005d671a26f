// Runs a TensorFlow.js model on draws that lie in files, with its plain JavaScript kernels.
//
//   node run.js handed-over.json DESCRIPTOR
//
// {model, inputs: [[{name, dtype, shape, file}, …], …], outputs: [{name, tensor}, …], told} says what to run: the path
// of model.json, one list of tensors for each draw, and what the outputs are called, and in a graph which tensors they
// are. A file holds the numbers of one tensor, row by row, little-endian. One line of JSON on the descriptor answers,
// as any job does: {"value": {refusal, draws, told}}, where draws are lists like those of inputs, or {"error": …}; one
// before it says that nothing keeps Node from running here.
const fs = require('fs');
const path = require('path');
const tf = require('@tensorflow/tfjs-core');
require('@tensorflow/tfjs-backend-cpu');

const ARRAYS = {float32: Float32Array, int32: Int32Array, bool: Uint8Array};
const LONGEST = 1000; // of what TensorFlow.js says that it does not like

// What the loaders for files and for HTTP make of model.json as well.
function artifacts(file) {
  const folder = path.dirname(file);
  return tf.io.getModelArtifactsForJSON(JSON.parse(fs.readFileSync(file, 'utf8')), async manifest => {
    const shards = manifest.flatMap(group => group.paths).map(name => fs.readFileSync(path.join(folder, name)));
    const data = new Uint8Array(shards.reduce((sum, shard) => sum + shard.length, 0));
    shards.reduce((offset, shard) => (data.set(shard, offset), offset + shard.length), 0);
    return [tf.io.getWeightSpecs(manifest), data.buffer];
  });
}

// The names of the outputs, and a function that gives their tensors for those of one draw.
async function open({model, outputs}) {
  const found = await artifacts(model);
  const handler = {load: async () => found};
  const names = outputs.map(output => output.name);
  if (found.modelTopology.node) {
    const graph = await require('@tensorflow/tfjs-converter').loadGraphModel(handler);
    follow(graph.executor);
    return {names, run: given => graph.executeAsync(given, outputs.map(output => output.tensor))};
  }
  const layers = await require('@tensorflow/tfjs-layers').loadLayersModel(handler);
  return {
    names: inOrderOf(layers.outputNames, names),
    run: given => {
      const tensors = inOrderOf(layers.inputNames, Object.keys(given)).map(name => given[name]);
      return layers.predict(tensors.length === 1 ? tensors[0] : tensors);
    },
  };
}

// Remember which operation of a graph is being executed, also in its functions, for errors do not name it.
let current = '';
function follow(executor) {
  const executors = [executor, ...Object.values(executor?.functionExecutorMap ?? {})];
  for (const node of executors.flatMap(each => Object.values(each?.graph?.nodes ?? {}))) {
    const category = node.category; // what an executor looks at first
    Object.defineProperty(node, 'category', {get: () => (current = `${node.op} (${node.name}): `, category)});
  }
}

// The names in the model's own order; as they are where it calls them otherwise, or knows none, as a Sequential does.
function inOrderOf(known, names) {
  return known.length === names.length && names.every(name => known.includes(name)) ? known : names;
}

function read({file, dtype, shape}) {
  const bytes = fs.readFileSync(file);
  const numbers = new ARRAYS[dtype](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  return tf.tensor(numbers, shape, dtype);
}

async function write(tensor, name, file) {
  const {dtype, shape} = tensor;
  if (!(dtype in ARRAYS)) {
    throw new Error(`It gives ${name} as ${dtype}.`);
  }
  const numbers = await tensor.data();
  fs.writeFileSync(file, Buffer.from(numbers.buffer, numbers.byteOffset, numbers.byteLength));
  return {name, dtype, shape, file};
}

async function answer(model, draw, number) {
  const given = Object.fromEntries(draw.map(item => [item.name, read(item)]));
  const results = [await model.run(given)].flat();
  const shown = [];
  for (const [place, tensor] of results.entries()) {
    shown.push(await write(tensor, model.names[place], `output-${number}-${place}.bin`));
  }
  tf.dispose([results, given]);
  return shown;
}

async function main(handed) {
  await tf.setBackend('cpu');
  const model = await open(handed);
  const draws = [];
  for (const [number, draw] of handed.inputs.entries()) {
    draws.push(await answer(model, draw, number));
  }
  return {refusal: '', draws, told: handed.told};
}

// Where memory ran out, nothing is known about the model; whatever else TensorFlow.js raises is a refusal.
function refusal(error) {
  const message = String(error && error.message || error);
  if (/allocation failed/i.test(message)) {
    return {error: {code: 'out-of-memory', details: {limit: 'amount'}}};
  }
  return {value: {refusal: (current + message).replace(/\s+/g, ' ').slice(0, LONGEST), draws: [], told: {}}};
}

const [, , file, descriptor] = process.argv;
const say = line => fs.writeSync(Number(descriptor), JSON.stringify(line) + '\n');
say({progress: 'TensorFlow.js has begun'});
main(JSON.parse(fs.readFileSync(file, 'utf8')))
    .then(value => ({value}))
    .catch(refusal)
    .then(say);

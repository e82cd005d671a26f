// node run.js jobs.json answers.json : runs TensorFlow.js models with its plain JavaScript kernels.
// A job is {folder, inputs: {name: {shape, dtype, data}}, outputs: [names]} or {save: folder, script}, where the
// script gets tf and layers and returns a layers model, which is saved as TensorFlow.js saves it.
const fs = require('fs');
const path = require('path');
const tf = require('@tensorflow/tfjs-core');
require('@tensorflow/tfjs-backend-cpu');
const layers = require('@tensorflow/tfjs-layers');
const {loadGraphModel} = require('@tensorflow/tfjs-converter');

function artifacts(folder) {
  const root = JSON.parse(fs.readFileSync(path.join(folder, 'model.json')));
  const shards = root.weightsManifest.flatMap(group => group.paths);
  const data = Buffer.concat(shards.map(name => fs.readFileSync(path.join(folder, name))));
  const weightData = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
  return {...root, weightSpecs: root.weightsManifest.flatMap(group => group.weights), weightData};
}

async function plain(tensor) {
  return {shape: tensor.shape, dtype: tensor.dtype, data: Array.from(await tensor.data())};
}

async function run(job) {
  const found = artifacts(job.folder);
  const given = Object.fromEntries(
      Object.entries(job.inputs).map(([name, item]) => [name, tf.tensor(item.data, item.shape, item.dtype)]));
  const handler = {load: async () => found};
  let results;
  if (found.format === 'graph-model') {
    const model = await loadGraphModel(handler);
    results = await model.executeAsync(given, job.outputs);
  } else {
    const model = await layers.loadLayersModel(handler);
    results = model.predict(model.inputs.map((input, place) => given[input.name] || Object.values(given)[place]));
  }
  return Promise.all((Array.isArray(results) ? results : [results]).map(plain));
}

async function save(job) {
  const model = await new Function('tf', 'layers', 'return (async () => {' + job.script + '})()')(tf, layers);
  await model.save(tf.io.withSaveHandler(async saved => {
    fs.mkdirSync(job.save, {recursive: true});
    const {weightData, weightSpecs, ...root} = saved;
    const manifest = [{paths: ['./weights.bin'], weights: weightSpecs}];
    fs.writeFileSync(path.join(job.save, 'model.json'), JSON.stringify({...root, weightsManifest: manifest}));
    fs.writeFileSync(path.join(job.save, 'weights.bin'), Buffer.from(tf.io.CompositeArrayBuffer.join(weightData)));
    return {modelArtifactsInfo: {dateSaved: new Date(), modelTopologyType: 'JSON'}};
  }));
  return model.weights.map(weight => weight.originalName);
}

async function main() {
  await tf.setBackend('cpu');
  const answers = [];
  for (const job of JSON.parse(fs.readFileSync(process.argv[2]))) {
    try {
      answers.push({value: await (job.save ? save(job) : run(job))});
    } catch (error) {
      answers.push({error: String(error && error.message || error)});
    }
  }
  fs.writeFileSync(process.argv[3], JSON.stringify(answers));
}

main();

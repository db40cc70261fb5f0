// Compiles WGSL files with Tint, the compiler of Chromium, as a browser does: node check.mjs FILE…
// The device is Dawn's null device, which computes nothing and needs no driver.
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);
// Kept in a variable: if it is collected as garbage, promises are never settled.
const gpu = create(['backend=null']);
const adapter = await gpu.requestAdapter();
const device = await adapter.requestDevice({
  // Some browsers lack subgroups; kernels that use them have variants without.
  requiredFeatures: ['subgroups'].filter((feature) => adapter.features.has(feature)),
});

let failures = 0;
for (const file of process.argv.slice(2)) {
  let code = readFileSync(file, 'utf8');
  // Tint needs the first line, naga rejects it. Tint cannot prove that loops over the number of subgroups are uniform,
  // so that check is turned off.
  if (/\bsubgroup[A-Z_]/.test(code)) code = `enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n${code}`;
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  const { messages } = await module.getCompilationInfo();
  let error = (await device.popErrorScope())?.message;
  for (const { lineNum, linePos, type, message } of messages) {
    console.log(`${basename(file)}:${lineNum}:${linePos}: ${type}: ${message}`);
  }
  if (!error) {
    const compute = { module, entryPoint: 'main' };
    error = await device.createComputePipelineAsync({ layout: 'auto', compute }).then(
      () => undefined,
      (refusal) => refusal.message,
    );
  }
  if (error) {
    failures += 1;
    console.log(`${basename(file)}: refused: ${error.slice(0, 400)}`);
  }
}
console.log(`${process.argv.length - 2 - failures} of ${process.argv.length - 2} kernel variants pass Tint`);
globalThis.keep = gpu;
process.exit(failures || process.argv.length === 2 ? 1 : 0);

/** Chromium with WebGPU, and pages in it that have the package. */

import { chromium } from 'playwright-core';

const ARGS = [
  '--enable-unsafe-webgpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--js-flags=--expose-gc',
  '--enable-precise-memory-info',
];

/** Starts the browser, with more arguments if a test wants some. */
export async function launch({ args = [] } = {}) {
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
  return chromium.launch({ executablePath, chromiumSandbox: false, headless: true, args: [...ARGS, ...args] });
}

/**
 * A page of `server` with storage of its own, in which the package is imported. `init` runs in it before any other script.
 *
 * @param {import('playwright-core').Browser} browser
 * @param {import('./server.js').Server} server
 * @param {{ init?: (() => void)[] }} [options]
 */
export async function openPage(browser, server, { init = [] } = {}) {
  const context = await browser.newContext();
  const page = await context.newPage();
  // Shaders are compiled on the CPU, which takes a while on busy machines.
  page.setDefaultTimeout(120_000);
  if (process.env.SHOW_CONSOLE) page.on('console', (message) => console.error(`[page] ${message.text()}`));
  page.on('pageerror', (error) => {
    // Nothing that is thrown may go past whoever called: the test file fails.
    console.error(`[page] not caught: ${error}`);
    process.exitCode = 1;
  });
  for (const script of init) await page.addInitScript(script);
  await visit(page, server);
  return page;
}

/** Goes to the page, or loads it again. */
export async function visit(page, server) {
  await page.goto(`${server.origin}/`);
  await page.waitForFunction(() => globalThis.ready || globalThis.missing);
  if (await page.evaluate(() => globalThis.missing)) throw new Error('the page finds no package: build bindings/web first');
}

/** Closes a page and drops its storage. */
export async function closePage(page) {
  await page.context().close();
}

/**
 * An `init` for pages that load models and compute nothing: kernels that do nothing take the place of the package's own, whose
 * compilation is most of what a load takes where a CPU plays the GPU. It cannot reach into workers.
 */
export function withoutKernels() {
  const { createShaderModule, createComputePipeline } = GPUDevice.prototype;
  GPUDevice.prototype.createShaderModule = function () {
    return createShaderModule.call(this, { code: '@compute @workgroup_size(1) fn main() {}' });
  };
  GPUDevice.prototype.createComputePipeline = function ({ layout, compute: { module } }) {
    return createComputePipeline.call(this, { layout, compute: { module } });
  };
}

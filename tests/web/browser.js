/** Chromium, and pages in it that have the package. */

import { chromium } from 'playwright-core';

const ARGS = [
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--js-flags=--expose-gc',
  '--enable-precise-memory-info',
];

/** Without the argument, Chromium offers no adapter that runs on the CPU. */
const WEBGPU = '--enable-unsafe-webgpu';

/** Starts the browser, with further arguments if a test needs some, or without WebGPU. */
export async function launch({ args = [], webgpu = true } = {}) {
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
  const all = [...ARGS, ...(webgpu ? [WEBGPU] : []), ...args];
  return chromium.launch({ executablePath, chromiumSandbox: false, headless: true, args: all });
}

/**
 * Opens a page of `server` with storage of its own, which imports the package. `init` scripts run in it before any
 * other script.
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
    // An error that nobody catches fails the test file.
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
  if (await page.evaluate(() => globalThis.missing)) {
    throw new Error('the page cannot load the package; build bindings/web first');
  }
}

/** Closes a page and deletes its storage. */
export async function closePage(page) {
  await page.context().close();
}

/**
 * An `init` script for pages that load models and compute nothing: it replaces the package's kernels by empty ones.
 * Where the CPU emulates the GPU, compiling kernels takes most of the time of a load. It doesn't reach workers.
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

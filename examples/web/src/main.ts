/** Connects the parts of the page. */

import {
  Bolmo,
  DeviceLostError,
  type GenerateOptions,
  type LoadProgress,
  NotFoundError,
  type Session,
} from 'bolmo-web';
import { checkpointFolder, dropped, picked, type Found } from './files.js';
import { plural, rate } from './format.js';
import { type Loaded, type Origin, Shelf, adapterWords } from './model.js';
import { Output } from './output.js';
import * as view from './view.js';

const { elements } = view;
const demo: Origin = { name: 'Demo model', source: './model/' };
const shelf = new Shelf(deviceLost);
const output = new Output(elements.text);
/** Description of the last probe's adapter. */
let adapter = '';

/** The running task: loading or writing, one at a time. */
let work: { controller: AbortController; over: Promise<void> } | undefined;

/** Cancels the running task, then runs `task`. Errors are shown, and the page stays usable. */
type Action = { label: string; run: () => void };

function run(state: view.State, task: (signal: AbortSignal) => Promise<void>, action?: Action): void {
  const before = work;
  before?.controller.abort();
  const controller = new AbortController();
  const mine = { controller, over: Promise.resolve() };
  work = mine;
  mine.over = (async () => {
    await before?.over;
    try {
      controller.signal.throwIfAborted();
      view.clearError();
      view.showState(state);
      await task(controller.signal);
    } catch (error) {
      if (controller.signal.aborted) view.say('Stopped.');
      else {
        const former = shelf.loaded && state === 'loading' ? ` ${shelf.loaded.origin.name} is still loaded.` : '';
        view.say(shelf.loaded ? `That failed.${former}` : 'No model is loaded.');
        if (error instanceof DeviceLostError) deviceLost(error);
        else view.showError(error, action);
      }
      // The probe of the failed model was shown; show that of the model that is still loaded.
      if (shelf.loaded) view.showProbe(shelf.loaded.probe, shelf.loaded.origin.name, adapter);
    }
    if (work === mine) {
      work = undefined;
      view.showState(shelf.loaded ? 'ready' : 'empty');
      elements.demo.hidden = shelf.loaded?.origin === demo;
      elements.demo.textContent = shelf.loaded ? 'Back to the demo model' : 'Load the demo model';
    }
  })();
}

function load(origin: Origin, quantize?: string): void {
  // Local files stay as they are; a server may have recovered.
  const retry = { label: 'Try again', run: () => load(origin, quantize) };
  const again = typeof origin.source === 'string' ? retry : undefined;
  run('loading', async (signal) => {
    view.say(`Loading: ${origin.name}.`);
    const onProgress = (progress: LoadProgress): void => view.showProgress(progress, origin.name);
    onProgress({ loaded: 0, total: 0, fetched: 0, cached: 0 });
    const loaded = await shelf.load(origin, {
      quantize,
      signal,
      onProgress,
      onProbe: async (probe) => {
        adapter = probe.adapter ? adapterWords(probe.adapter) : '';
        view.showProbe(probe, origin.name, adapter);
      },
    });
    await ready(loaded);
  }, again);
}

async function ready(loaded: Loaded): Promise<void> {
  view.showModel(loaded, adapter);
  view.say(`${loaded.origin.name} is ready.`);
  await view.showMemory(await loaded.model.usage());
}

function deviceLost(error: DeviceLostError): void {
  const reload = (): void =>
    run('loading', async (signal) => {
      view.say('Reloading the model.');
      const name = shelf.loaded?.origin.name ?? '';
      const loaded = await shelf.reload(signal, (progress) => view.showProgress(progress, name));
      await ready(loaded);
    });
  view.showError(error, { label: 'Reload the model', run: reload });
}

/** The settings, which the form has validated. */
function settings(): GenerateOptions {
  return {
    maxBytes: elements.maxBytes.valueAsNumber,
    temperature: elements.temperature.valueAsNumber,
    repetitionPenalty: elements.penalty.valueAsNumber,
    seed: elements.seed.valueAsNumber,
    boundaryBias: elements.bias.valueAsNumber,
  };
}

function write(): void {
  const { model } = shelf.loaded ?? {};
  if (!model || !view.enabled(elements.write)) return;
  run('writing', async (signal) => {
    const options = { ...settings(), signal };
    const prompt = new TextEncoder().encode(elements.prompt.value);
    output.begin(prompt);
    elements.list.open = false;
    view.showNumbers(output.cut, undefined, undefined);
    view.say('Writing.');
    const begun = performance.now();
    let first: number | undefined;
    const perSecond = (): number | undefined => {
      const made = output.cut.bytes.length - prompt.length;
      return first === undefined || made < 2 ? undefined : ((made - 1) / (performance.now() - begun - first)) * 1000;
    };
    // A busy session rejects calls; the model doesn't.
    const clock = setInterval(() => {
      view.showNumbers(output.cut, first, perSecond());
      void model.usage().then(view.showMemory, () => {});
    }, 500);
    const slow = 'Writing. The first text can take longer: the browser compiles the kernels.';
    const patience = setTimeout(() => view.say(slow), 1500);
    let session: Session | undefined;
    try {
      session = await model.session();
      await session.append(prompt, { signal });
      output.recut((await session.state()).patchEnds);
      for await (const piece of session.generate(options)) {
        if (first === undefined) {
          first = performance.now() - begun;
          clearTimeout(patience);
        }
        output.push(piece);
      }
      view.say(summary(perSecond()));
    } catch (error) {
      if (!signal.aborted) throw error;
      view.say(`Stopped. ${summary(perSecond())}`);
    } finally {
      clearInterval(clock);
      clearTimeout(patience);
      const speed = perSecond();
      // Only now is it known whether the prompt's last patch had ended.
      const state = await session?.state().catch(() => undefined);
      if (state && state.length === output.cut.bytes.length) output.recut(state.patchEnds);
      else output.draw();
      view.showNumbers(output.cut, first, speed);
      session?.close();
      void model.usage().then(view.showMemory, () => {});
    }
  });
}

function summary(perSecond: number | undefined): string {
  const { bytes, ends, prompt } = output.cut;
  const patches = ends.filter((end) => end > prompt).length;
  const speed = perSecond === undefined ? '' : `, ${rate(perSecond)} bytes per second`;
  return `Wrote ${plural(bytes.length - prompt, 'byte')} in ${plural(patches, 'patch', 'patches')}${speed}.`;
}

/** Loads a folder that was picked or dropped. */
function loadFiles(gather: Promise<Found[]>): void {
  run('loading', async () => {
    const folder = checkpointFolder(await gather);
    if (!folder) throw new NotFoundError('not found', 'the selection contains no files');
    // A load of its own, which replaces this task.
    load({ name: folder.name, source: folder.files });
  });
}

elements.form.addEventListener('submit', (event) => {
  event.preventDefault();
  write();
});
elements.stop.addEventListener('click', () => work?.controller.abort());
elements.bias.addEventListener('input', () => {
  const bias = elements.bias.valueAsNumber;
  elements.biasValue.value = `${bias > 0 ? '+' : bias < 0 ? '−' : ''}${Math.abs(bias).toFixed(1)}`;
});
elements.requantize.addEventListener('click', () => {
  if (shelf.loaded && view.enabled(elements.requantize)) load(shelf.loaded.origin, elements.quantize.value);
});
elements.demo.addEventListener('click', () => {
  load(demo);
  elements.prompt.focus();
});
elements.forget.addEventListener('click', async () => {
  await Bolmo.clearCache();
  await view.showMemory(undefined);
  view.say('The browser’s storage is deleted.');
});
elements.list.addEventListener('toggle', () => {
  elements.rows.replaceChildren(...(elements.list.open ? output.rows() : []));
});
elements.folder.addEventListener('change', () => {
  const files = picked(elements.folder.files ?? []);
  // Allows the same folder to be chosen again.
  elements.folder.value = '';
  if (files.length > 0) loadFiles(Promise.resolve(files));
});
// Where folders cannot be chosen, files can.
if (!('webkitdirectory' in elements.folder)) (elements.folder as HTMLInputElement).multiple = true;

document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') work?.controller.abort();
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    elements.form.requestSubmit();
  }
});

const bringsFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes('Files') ?? false;
let inside = 0;
const mark = (change: number): void => {
  inside = Math.max(0, inside + change);
  document.body.classList.toggle('dropping', inside > 0);
};
document.addEventListener('dragenter', (event) => bringsFiles(event) && mark(1));
document.addEventListener('dragleave', (event) => bringsFiles(event) && mark(-1));
document.addEventListener('dragover', (event) => {
  if (bringsFiles(event)) event.preventDefault();
});
document.addEventListener('drop', (event) => {
  if (!event.dataTransfer || !bringsFiles(event)) return;
  event.preventDefault();
  mark(-inside);
  loadFiles(dropped(event.dataTransfer));
});

view.showHistogram(new Array<number>(8).fill(0));
load(demo);

/** The page's elements, and what they show. */

import type { LoadProgress, Probe, Usage } from 'bolmo-web';
import { advise } from './advice.js';
import { count, plural, rate, seconds, size } from './format.js';
import type { Loaded } from './model.js';
import { type Cut, bytesPerPatch, lengths } from './patches.js';

function find<T extends HTMLElement>(id: string, kind: new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`the page has no ${kind.name} #${id}`);
  return element;
}

export const elements = {
  alert: find('alert', HTMLDivElement),
  lamp: find('lamp', HTMLSpanElement),
  gpu: find('gpu', HTMLSpanElement),
  fit: find('fit', HTMLParagraphElement),
  loading: find('loading', HTMLDivElement),
  progress: find('progress', HTMLProgressElement),
  phase: find('phase', HTMLSpanElement),
  form: find('form', HTMLFormElement),
  prompt: find('prompt', HTMLTextAreaElement),
  maxBytes: find('max-bytes', HTMLInputElement),
  temperature: find('temperature', HTMLInputElement),
  penalty: find('penalty', HTMLInputElement),
  seed: find('seed', HTMLInputElement),
  bias: find('bias', HTMLInputElement),
  biasValue: find('bias-value', HTMLOutputElement),
  write: find('write', HTMLButtonElement),
  stop: find('stop', HTMLButtonElement),
  status: find('status', HTMLParagraphElement),
  text: find('text', HTMLDivElement),
  list: find('list', HTMLDetailsElement),
  rows: find('rows', HTMLTableSectionElement),
  speed: find('speed', HTMLElement),
  first: find('first', HTMLElement),
  ratio: find('ratio', HTMLElement),
  written: find('written', HTMLElement),
  histogram: find('histogram', HTMLDivElement),
  deviceMemory: find('device-memory', HTMLElement),
  wasmMemory: find('wasm-memory', HTMLElement),
  stored: find('stored', HTMLSpanElement),
  forget: find('forget', HTMLButtonElement),
  facts: find('facts', HTMLDListElement),
  quantize: find('quantize', HTMLSelectElement),
  requantize: find('requantize', HTMLButtonElement),
  folder: find('folder', HTMLInputElement),
  demo: find('demo', HTMLButtonElement),
};

/** States of the page. */
export type State = 'loading' | 'writing' | 'ready' | 'empty';

/** Enables and disables controls. Disabled buttons stay focusable, so that the focus is not lost. */
export function showState(state: State): void {
  document.body.dataset.state = state;
  const disable = (button: HTMLElement, disabled: boolean): void => {
    button.setAttribute('aria-disabled', String(disabled));
  };
  disable(elements.write, state !== 'ready');
  disable(elements.stop, state !== 'writing' && state !== 'loading');
  disable(elements.requantize, state !== 'ready');
  elements.text.setAttribute('aria-busy', String(state === 'writing'));
  if (state !== 'loading') elements.loading.hidden = true;
}

export function enabled(button: HTMLElement): boolean {
  return button.getAttribute('aria-disabled') !== 'true';
}

/** Shows one sentence, which screen readers announce. */
export function say(text: string): void {
  elements.status.textContent = text;
}

/** Shows an error, with a button that may help. */
export function showError(error: unknown, action?: { label: string; run: () => void }): void {
  const { sentence, advice } = advise(error);
  // A lost device is also reported by the call that it ended.
  if (elements.alert.querySelector('strong')?.textContent === sentence) return;
  const box = document.createElement('div');
  box.className = 'error';
  const strong = document.createElement('p');
  strong.append(Object.assign(document.createElement('strong'), { textContent: sentence }));
  box.append(strong);
  if (advice.length === 1) box.append(Object.assign(document.createElement('p'), { textContent: advice[0] }));
  if (advice.length > 1) {
    const list = document.createElement('ul');
    for (const line of advice) list.append(Object.assign(document.createElement('li'), { textContent: line }));
    box.append(list);
  }
  const buttons = document.createElement('p');
  buttons.className = 'actions';
  if (action) buttons.append(button(action.label, action.run));
  buttons.append(button('Dismiss', clearError));
  box.append(buttons);
  elements.alert.replaceChildren(box);
  // Users who have scrolled down would not see it.
  elements.alert.scrollIntoView({ block: 'nearest' });
}

export function clearError(): void {
  const focused = elements.alert.contains(document.activeElement);
  elements.alert.replaceChildren();
  if (focused) elements.prompt.focus();
}

function button(label: string, run: () => void): HTMLButtonElement {
  const made = Object.assign(document.createElement('button'), { type: 'button', textContent: label });
  made.addEventListener('click', run);
  return made;
}

/** Shows what is known before anything is loaded. */
export function showProbe({ ok, device, model }: Probe, name: string, adapter: string): void {
  elements.lamp.dataset.on = ok ? 'yes' : 'no';
  const without = ok ? 'WebGPU does not work here. The CPU computes.' : 'WebGPU does not work here.';
  elements.gpu.textContent = device === 'gpu' ? `WebGPU works here: ${adapter}.` : without;
  const fit = model?.formats.find(({ format }) => format === model.recommended) ?? model?.formats.at(-1);
  elements.fit.textContent = '';
  // Without a device nothing is known, and the error says so.
  if (!ok || !fit) return;
  const words = { yes: 'fits', perhaps: 'may fit', no: 'does not fit', unknown: 'needs a device' }[fit.fits];
  elements.fit.textContent = `${name} ${words}: about ${size(fit.bytes)} of memory as ${fit.format}.`;
}

/** Shows the progress of a load. */
export function showProgress({ loaded, total, fetched, cached }: LoadProgress, name: string): void {
  elements.loading.hidden = false;
  if (total > 0) {
    elements.progress.max = total;
    elements.progress.value = loaded;
  } else {
    elements.progress.removeAttribute('value');
  }
  const from = fetched > 0 ? ' from the network' : cached > 0 ? ' from the browser’s storage' : '';
  const opening = 'opening the checkpoint, compiling the kernels';
  elements.phase.textContent = `${name}: ${total > 0 ? `${size(loaded)} of ${size(total)}${from}` : opening}`;
}

/** Shows the properties of a loaded model. */
export function showModel({ model, origin, probe, milliseconds, fetched, cached }: Loaded, adapter: string): void {
  const { info } = model;
  const from = fetched > 0 ? 'the network' : cached > 0 ? 'the browser’s storage' : 'files';
  const facts: [string, string][] = [
    ['Name', origin.name],
    ['Parameters', count(info.parameters)],
    ['Weights', `${size(info.weightBytes)} as ${info.formats}`],
    ['Loaded', `in ${seconds(milliseconds)} from ${from}`],
    ['Computed by', info.device === 'cpu' ? 'the CPU, on one thread' : adapter],
    ...info.warnings.map((warning): [string, string] => ['Note', warning]),
  ];
  elements.facts.replaceChildren(
    ...facts.map(([term, value]) => {
      const row = document.createElement('div');
      const cell = (tag: string, textContent: string) => Object.assign(document.createElement(tag), { textContent });
      row.append(cell('dt', term), cell('dd', value));
      return row;
    }),
  );
  const formats = probe.model?.formats ?? [];
  const words = { yes: '', perhaps: ', may fit', no: ', does not fit', unknown: '' };
  elements.quantize.replaceChildren(
    ...formats.map(({ format, bytes, fits }) => {
      return new Option(`${format}, ${size(bytes)}${words[fits]}`, format, false, format === info.formats);
    }),
  );
  elements.quantize.disabled = formats.length < 2;
}

/** Shows the model's memory, and the size of the browser's storage. */
export async function showMemory(usage: Usage | undefined): Promise<void> {
  if (usage) {
    elements.deviceMemory.textContent = size(usage.deviceBytes);
    elements.wasmMemory.textContent = size(usage.wasmBytes);
  }
  const stored = (await navigator.storage?.estimate?.())?.usage;
  elements.stored.textContent = stored === undefined ? 'unknown' : size(stored);
}

const PLACES = 8;

/** Shows the numbers of a text while it is generated. */
export function showNumbers(cut: Cut, first: number | undefined, perSecond: number | undefined): void {
  const ratio = bytesPerPatch(cut);
  elements.speed.textContent = perSecond === undefined ? '–' : rate(perSecond);
  elements.first.textContent = first === undefined ? '–' : seconds(first);
  elements.ratio.textContent = ratio === undefined ? '–' : ratio.toFixed(2);
  elements.written.textContent = String(cut.bytes.length - cut.prompt);
  showHistogram(lengths(cut, PLACES));
}

export function showHistogram(counts: number[]): void {
  const most = Math.max(1, ...counts);
  elements.histogram.replaceChildren(
    ...counts.map((number, at) => {
      const place = document.createElement('span');
      place.style.setProperty('--share', String(number / most));
      place.dataset.label = at + 1 < PLACES ? String(at + 1) : `${PLACES}+`;
      const bytes = `${plural(at + 1, 'byte')}${at + 1 < PLACES ? '' : ' or more'}`;
      place.title = `${plural(number, 'patch', 'patches')} of ${bytes}`;
      return place;
    }),
  );
  const words = counts.flatMap((number, at) => {
    return number > 0 ? [`${number} of ${at + 1 < PLACES ? at + 1 : `${PLACES} or more`}`] : [];
  });
  const label = words.length > 0 ? `Patches by size in bytes: ${words.join(', ')}` : 'No patches yet';
  elements.histogram.setAttribute('aria-label', label);
}

/** What to do about an error. */

import {
  BadCheckpointError,
  BolmoError,
  BusyError,
  DeviceLostError,
  InvalidArgumentError,
  NetworkError,
  NotFoundError,
  NoWebGpuError,
  OutOfMemoryError,
  UnsupportedError,
} from 'bolmo-web';

/** Why this browser may have no WebGPU. */
export const webGpuAdvice = [
  'Chrome and Edge have WebGPU since 113 (since 121 on Android), Safari since 26, Firefox since 141 on Windows and 145 on Macs with Apple silicon.',
  'If the browser is newer, update the graphics driver, and see that hardware acceleration is on in the browser’s settings.',
  'On Linux, Chrome may want the flag “Unsafe WebGPU Support” at chrome://flags; chrome://gpu says why a GPU is not used.',
];

/** An error as a sentence, and what to do about it. */
export function advise(error: unknown): { sentence: string; advice: string[] } {
  const message = error instanceof Error ? error.message : String(error);
  return { sentence: sentence(message), advice: adviceFor(error) };
}

/** Messages of the package begin small and have no full stop. */
export function sentence(message: string): string {
  const text = message.trim();
  // Addresses and file names stay as they are.
  const begins = /^[a-z]+[ ,:]/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(begins) ? begins : `${begins}.`;
}

function adviceFor(error: unknown): string[] {
  if (error instanceof NoWebGpuError) return webGpuAdvice;
  if (error instanceof DeviceLostError) return ['Reload the model. If that does not last, close other pages that use the GPU.'];
  if (error instanceof OutOfMemoryError) return ['Keep the weights in fewer bits, such as q4, write less, or close other tabs.'];
  if (error instanceof NotFoundError) {
    return ['A checkpoint is a folder with config.json, model.safetensors (or its shards and their index) and tokenizer.json. Choose that folder itself.'];
  }
  if (error instanceof BadCheckpointError) return ['Get the files again, or compare them with those of the model’s source.'];
  if (error instanceof UnsupportedError) return ['Choose another model, or another format for its weights.'];
  if (error instanceof InvalidArgumentError) return ['Change the setting that is named, and try again.'];
  // Browsers throw the latter for files that cannot be read.
  if (error instanceof NetworkError || error instanceof DOMException) return ['Check that the files are still there and the connection works, and try again.'];
  if (error instanceof BusyError) return ['Press Stop, or wait for the end of the text.'];
  if (error instanceof BolmoError) return ['Reload the page. If it happens again, please report it with the prompt and the settings.'];
  return ['Reload the page, and please report this.'];
}

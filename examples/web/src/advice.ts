/** Advice on errors. */

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

/** Reasons why this browser may have no WebGPU. */
export const webGpuAdvice = [
  'Chrome and Edge have WebGPU since 113 (since 121 on Android), Safari since 26, ' +
    'Firefox since 141 on Windows and 145 on Macs with Apple silicon.',
  'If the browser is newer, update the graphics driver, and turn on hardware acceleration in the browser’s settings.',
  'On Linux, Chrome may need the flag “Unsafe WebGPU Support” at chrome://flags; ' +
    'chrome://gpu says why a GPU is not used.',
];

/** An error as a sentence, with advice. */
export function advise(error: unknown): { sentence: string; advice: string[] } {
  const message = error instanceof Error ? error.message : String(error);
  return { sentence: sentence(message), advice: adviceFor(error) };
}

/** Turns a message of the package, which starts in lower case and has no full stop, into a sentence. */
export function sentence(message: string): string {
  const text = message.trim();
  // Addresses and file names keep their case.
  const begins = /^[a-z]+[ ,:]/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(begins) ? begins : `${begins}.`;
}

function adviceFor(error: unknown): string[] {
  if (error instanceof NoWebGpuError) return webGpuAdvice;
  if (error instanceof DeviceLostError) {
    return ['Reload the model. If the device is lost again, close other pages that use the GPU.'];
  }
  if (error instanceof OutOfMemoryError) {
    return ['Choose a smaller format for the weights, such as q4, generate less text, or close other tabs.'];
  }
  if (error instanceof NotFoundError) {
    return [
      'A checkpoint is a folder with config.json, model.safetensors (or its shards and their index) ' +
        'and tokenizer.json. Choose that folder itself.',
    ];
  }
  if (error instanceof BadCheckpointError) {
    return ['Download the files again, or compare them with those of the model’s source.'];
  }
  if (error instanceof UnsupportedError) return ['Choose another model, or another format for its weights.'];
  if (error instanceof InvalidArgumentError) return ['Change the setting that is named, and try again.'];
  // Browsers throw a DOMException for files that cannot be read.
  if (error instanceof NetworkError || error instanceof DOMException) {
    return ['Check that the files still exist and the connection works, and try again.'];
  }
  if (error instanceof BusyError) return ['Press Stop, or wait for the end of the text.'];
  if (error instanceof BolmoError) {
    return ['Reload the page. If it happens again, please report it with the prompt and the settings.'];
  }
  return ['Reload the page, and please report this.'];
}

/** The `bolmo` command, the reference for the package's output. */

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';

import { root, trained } from './models.js';

const command = process.env.BOLMO ?? path.join(root, 'target/release/bolmo');

/** Why tests that need the command are skipped; `false` if they aren't. */
export const missing = existsSync(command) ? false : `${command} is not built`;

/** Runs the command on the trained golden model with `input` on its standard input. Resolves to its JSON output. */
export function native(args, input) {
  return new Promise((resolve, reject) => {
    const options = { maxBuffer: 1 << 26 };
    const all = [...args, '--model', trained, '--json', '--quiet'];
    const child = execFile(command, all, options, (error, stdout, stderr) => {
      if (error) reject(new Error(`bolmo ${args.join(' ')}: ${stderr || error.message}`));
      else resolve(JSON.parse(stdout));
    });
    child.stdin.end(input);
  });
}

/** What the command generates after `prompt`: its text, and its bytes as numbers. */
export async function nativeGeneration(prompt, args) {
  const made = await native(['generate', '--prompt-file', '-', ...args], prompt);
  return { ...made, bytes: [...Buffer.from(made.bytes_base64, 'base64')] };
}

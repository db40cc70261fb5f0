import { readFile, stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { type Plugin, defineConfig } from 'vite';

const repository = fileURLToPath(new URL('../..', import.meta.url));
const folder = fileURLToPath(new URL('../demo-model/', import.meta.url));
/** The files of a checkpoint with one weight file that the runtime reads. */
const files = ['config.json', 'tokenizer.json', 'tokenizer_config.json', 'model.safetensors'];

/** Serves the demo model as ./model/ during development, and adds it to the build. */
function demoModel(): Plugin {
  return {
    name: 'demo-model',
    configureServer(server) {
      server.middlewares.use('/model', (request, response, next) => {
        const name = (request.url ?? '').replace(/^\/|\?.*$/g, '');
        if (!files.includes(name)) return next();
        // The runtime needs the length, and works without ranges.
        const answer = async (): Promise<void> => {
          const { size, mtime } = await stat(folder + name);
          response.setHeader('content-type', name.endsWith('.json') ? 'application/json' : 'application/octet-stream');
          response.setHeader('content-length', size);
          response.setHeader('last-modified', mtime.toUTCString());
          response.end(request.method === 'HEAD' ? undefined : await readFile(folder + name));
        };
        answer().catch(next);
      });
    },
    async generateBundle() {
      for (const name of files) {
        this.emitFile({ type: 'asset', fileName: `model/${name}`, source: await readFile(folder + name) });
      }
    },
  };
}

export default defineConfig({
  // The page works from any folder of a server.
  base: './',
  // A missing file gives 404, not the page.
  appType: 'mpa',
  plugins: [demoModel()],
  // The package locates its worker and wasm file relative to its own modules; pre-bundling would move them apart.
  optimizeDeps: { exclude: ['bolmo-web'] },
  worker: { format: 'es' },
  build: { target: 'es2022', chunkSizeWarningLimit: 200 },
  // The package is a link to a folder of this repository.
  server: { fs: { allow: [repository] } },
});

//! What has to be settled with the environment before anything else runs.

/// Keeps the Vulkan drivers of headless machines from printing an `error:` line of their own.
///
/// Mesa asks the Wayland library for a display as soon as adapters are listed. Without an `XDG_RUNTIME_DIR` that library prints
/// `error: XDG_RUNTIME_DIR is invalid or not set in the environment.`, which looks like a failure of this command. There is no
/// display to be found then, so it is given one that cannot be opened, which it takes without a word.
#[cfg(unix)]
pub fn silence_display_probe() {
    use std::path::Path;

    let absolute = |name: &str| std::env::var_os(name).is_some_and(|value| Path::new(&value).is_absolute());
    if absolute("XDG_RUNTIME_DIR") || absolute("WAYLAND_DISPLAY") || std::env::var_os("WAYLAND_SOCKET").is_some() {
        return;
    }
    // SAFETY: this is the first thing that `main` does, so there is no other thread that could read the environment meanwhile.
    unsafe { std::env::set_var("WAYLAND_DISPLAY", "/dev/null") };
}

/// Elsewhere drivers are silent.
#[cfg(not(unix))]
pub fn silence_display_probe() {}

/**
 * @file bolmo.hpp
 * @brief The Bolmo runtime in C++17: bolmo.h with owners, exceptions or results, and callables. Header only; link
 * libbolmo.
 *
 * Every type of bolmo.h that is created and deleted has a movable class here that owns it. The function
 * `bolmo_session_append` is `session::append`; its comment in bolmo.h applies.
 *
 * ## Errors
 *
 * Each operation exists twice: `append` throws bolmo::error, `try_append` returns a bolmo::result. Without exceptions
 * (`-fno-exceptions`, or BOLMO_NO_EXCEPTIONS defined before the header is included) only the second form exists. All
 * files of a program should make the same choice.
 *
 * ## Callbacks
 *
 * A callback may be any callable. It returns nothing or a `bool`; `false` stops the operation. An exception in a
 * callback also stops the operation, and is thrown by the function that was called, in either form.
 *
 * ## A complete program
 *
 * @code{.cpp}
 * #include <bolmo.hpp>
 * #include <iostream>
 *
 * int main(int argc, char **argv) try {
 *     auto engine = bolmo::engine::create();
 *     auto model = bolmo::model::load(engine, bolmo::checkpoint::open(argc > 1 ? argv[1] : "bolmo-1b"));
 *     auto session = bolmo::session::create(model);
 *     session.append_bos();
 *     session.append("Once upon a time");
 *
 *     bolmo::generate_options options;
 *     options.max_bytes(200).temperature(0.8f).seed(1);
 *     session.generate(options, [](std::string_view bytes) { std::cout << bytes << std::flush; });
 * } catch (const bolmo::error &e) {
 *     std::cerr << bolmo_status_name(e.status()) << ": " << e.what() << '\n';
 *     return 1;
 * }
 * @endcode
 */

#ifndef BOLMO_HPP
#define BOLMO_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "bolmo.h"

#if !defined(BOLMO_NO_EXCEPTIONS) && !defined(__cpp_exceptions) && !defined(_CPPUNWIND)
/** Defined without exceptions, or by the program: only the `try_` forms exist. */
#define BOLMO_NO_EXCEPTIONS
#endif

/** The classes over bolmo.h. */
namespace bolmo {

/** An error: the message of bolmo_last_error_message, and the status. */
class error : public std::runtime_error {
public:
    /** Creates an error with a message of the caller's. */
    error(bolmo_status status, const std::string &message) : std::runtime_error(message), status_(status) {}

    /** The status that the C function returned. */
    bolmo_status status() const noexcept { return status_; }

    /** The error of the call that has just returned `status` on this thread. */
    static error last(bolmo_status status) { return error(status, bolmo_last_error_message()); }

private:
    bolmo_status status_;
};

/** A value or an error. */
template <class T> class [[nodiscard]] result {
public:
    /** Creates a result with a value. */
    result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    /** Creates a result with an error. */
    result(bolmo::error error) : state_(std::in_place_index<1>, std::move(error)) {}

    /** Whether there is a value. */
    explicit operator bool() const noexcept { return state_.index() == 0; }
    /** The value. Without a value this throws the error, or ends the program without exceptions. */
    T &value() & { return *check(); }
    /** As above. */
    const T &value() const & { return *const_cast<result *>(this)->check(); }
    /** As above. */
    T value() && { return std::move(*check()); }
    /** The value, as value(). */
    T &operator*() & { return value(); }
    /** The value, as value(). */
    const T &operator*() const & { return value(); }
    /** The value, as value(). */
    T operator*() && { return std::move(*this).value(); }
    /** A member of the value, as value(). */
    T *operator->() { return check(); }
    /** A member of the value, as value(). */
    const T *operator->() const { return const_cast<result *>(this)->check(); }
    /** The error. Ends the program if there is a value. */
    const bolmo::error &error() const {
        if (*this) std::abort();
        return *std::get_if<1>(&state_);
    }

private:
    T *check() {
        if (!*this) {
#ifdef BOLMO_NO_EXCEPTIONS
            std::abort();
#else
            throw error();
#endif
        }
        return std::get_if<0>(&state_);
    }

    std::variant<T, bolmo::error> state_;
};

/** Success, or an error. */
template <> class [[nodiscard]] result<void> {
public:
    /** Creates a success. */
    result() = default;
    /** Creates a result with an error. */
    result(bolmo::error error) : error_(std::move(error)) {}

    /** Whether the operation succeeded. */
    explicit operator bool() const noexcept { return !error_; }
    /** Throws the error if there is one, or ends the program without exceptions. */
    void value() const {
        if (*this) return;
#ifdef BOLMO_NO_EXCEPTIONS
        std::abort();
#else
        throw *error_;
#endif
    }
    /** The error. Ends the program if the operation succeeded. */
    const bolmo::error &error() const {
        if (*this) std::abort();
        return *error_;
    }

private:
    std::optional<bolmo::error> error_;
};

/** A view of items that somebody else owns. */
template <class T> class span {
public:
    /** No items. */
    constexpr span() noexcept = default;
    /** `size` items at `data`. */
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    /** The items of a vector, an array or another container. */
    template <class C, class = std::enable_if_t<std::is_convertible_v<decltype(std::declval<C &>().data()), T *>>>
    constexpr span(C &&items) noexcept : data_(items.data()), size_(items.size()) {}

    /** The first item. */
    constexpr T *data() const noexcept { return data_; }
    /** Number of items. */
    constexpr std::size_t size() const noexcept { return size_; }
    /** Whether there are no items. */
    constexpr bool empty() const noexcept { return size_ == 0; }
    /** Start of a loop over the items. */
    constexpr T *begin() const noexcept { return data_; }
    /** End of a loop over the items. */
    constexpr T *end() const noexcept { return data_ + size_; }
    /** An item; `index` is not checked. */
    constexpr T &operator[](std::size_t index) const noexcept { return data_[index]; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/** Number of logits. */
inline constexpr std::size_t logit_count = BOLMO_LOGITS;
/** The result of `matcher::allowed`: a flag for each byte, and one at 256 for the end. */
using allowed_bytes = std::array<std::uint8_t, BOLMO_CANDIDATES>;
/** Whether a patch ends with this id. */
constexpr bool ends_patch(std::uint16_t id) noexcept { return id >= BOLMO_FUSED_OFFSET; }
/** Whether this id ends the text. */
constexpr bool ends_text(std::uint16_t id) noexcept { return id % BOLMO_FUSED_OFFSET == BOLMO_END_ID; }
/** The byte of an id, which must be the id of a byte. */
constexpr char byte_of(std::uint16_t id) noexcept {
    return static_cast<char>(static_cast<unsigned char>(id % BOLMO_FUSED_OFFSET - BOLMO_BYTE_OFFSET));
}
/** Name of a reason, such as "budget". */
inline const char *name(bolmo_stop stop) noexcept { return bolmo_stop_name(stop); }

/** Owns a handle of bolmo.h and deletes it. It can be moved; a moved-from object is empty. */
template <class T, void (*Delete)(T *)> class handle {
public:
    /** The type in bolmo.h. */
    using raw_type = T;

    /** Creates an empty object. */
    handle() noexcept = default;
    /** Takes over a handle that the C functions created. */
    explicit handle(T *raw) noexcept : raw_(raw) {}
    /** Moves the handle. */
    handle(handle &&other) noexcept : raw_(other.release()) {}
    /** Deletes the handle and takes over the other one. */
    handle &operator=(handle &&other) noexcept {
        if (this != &other) reset(other.release());
        return *this;
    }
    /** Deletes the handle. */
    ~handle() { reset(); }

    /** The handle, for functions of bolmo.h. */
    T *get() const noexcept { return raw_; }
    /** Releases the handle, which the caller must delete. */
    T *release() noexcept { return std::exchange(raw_, nullptr); }
    /** Deletes the handle, and takes over another one. */
    void reset(T *raw = nullptr) noexcept {
        if (raw_) Delete(raw_);
        raw_ = raw;
    }
    /** Whether there is a handle. */
    explicit operator bool() const noexcept { return raw_ != nullptr; }

private:
    T *raw_ = nullptr;
};

/// @cond internal
namespace detail {

#ifndef BOLMO_NO_EXCEPTIONS
/* The exception that left a callback on this thread, on its way past the C frames. */
inline std::exception_ptr &pending() noexcept {
    thread_local std::exception_ptr exception;
    return exception;
}
#endif

/* Runs the body of a callback. Once one has thrown, later ones don't run until the C function has returned. */
template <class R, class F> R guarded(R stop, F work) noexcept {
#ifdef BOLMO_NO_EXCEPTIONS
    (void)stop;
    return work();
#else
    if (pending()) return stop;
    try {
        return work();
    } catch (...) {
        pending() = std::current_exception();
        return stop;
    }
#endif
}

/* Converts the status of a C function to a result. */
inline result<void> outcome(bolmo_status status) {
#ifndef BOLMO_NO_EXCEPTIONS
    if (pending()) std::rethrow_exception(std::exchange(pending(), nullptr));
#endif
    if (status != BOLMO_OK) return error::last(status);
    return {};
}

/* Calls a C function without results. */
template <class F, class... A> result<void> call(F fn, A... args) { return outcome(fn(args...)); }

/* Calls a C function that returns a value through its last argument, possibly as another type. */
template <class V, class As = V, class F, class... A> result<As> read(F fn, A... args) {
    V value{};
    if (auto done = outcome(fn(args..., &value)); !done) return done.error();
    return static_cast<As>(value);
}

/* Calls a C function that returns items and their number through its last two arguments. */
template <class T, class F, class... A> result<span<const T>> items(F fn, A... args) {
    const T *data = nullptr;
    std::size_t size = 0;
    if (auto done = outcome(fn(args..., &data, &size)); !done) return done.error();
    return span<const T>(data, size);
}

/* The same for text, as a view or as a string. */
template <class S, class T = char, class F, class... A> result<S> text(F fn, A... args) {
    auto found = items<T>(fn, args...);
    if (!found) return found.error();
    return found->empty() ? S() : S(reinterpret_cast<const char *>(found->data()), found->size());
}

/* Calls a C function that creates an H through its last argument. */
template <class H, class F, class... A> result<H> make(F fn, A... args) {
    typename H::raw_type *raw = nullptr;
    bolmo_status status = fn(args..., &raw);
    H made(raw);
    if (auto done = outcome(status); !done) return done.error();
    return result<H>(std::move(made));
}

/* All texts of a C function, for every index below the count of another one. */
template <class C, class F, class H> result<std::vector<std::string>> all_texts(C count, F fn, const H *handle) {
    auto number = read<std::size_t>(count, handle);
    if (!number) return number.error();
    std::vector<std::string> texts;
    while (texts.size() < *number) {
        auto found = text<std::string>(fn, handle, texts.size());
        if (!found) return found.error();
        texts.push_back(*std::move(found));
    }
    return texts;
}

/* Calls a function that returns nothing or a bool. Returns 0 to continue, as C callbacks do. */
template <class F, class... A> std::int32_t go_on(F &fn, A... args) {
    if constexpr (std::is_void_v<std::invoke_result_t<F &, A...>>) {
        std::invoke(fn, args...);
        return 0;
    } else {
        static_assert(std::is_same_v<std::invoke_result_t<F &, A...>, bool>, "callbacks return nothing or a bool");
        return std::invoke(fn, args...) ? 0 : 1;
    }
}

template <class F> std::int32_t on_progress(std::uint64_t done, std::uint64_t total, void *user_data) noexcept {
    return guarded(std::int32_t{1}, [&] { return go_on(*static_cast<F *>(user_data), done, total); });
}

template <class F>
std::int32_t on_piece(const std::uint8_t *data, std::size_t size, const std::uint16_t *ids, void *user_data) noexcept {
    std::string_view bytes(reinterpret_cast<const char *>(data), size);
    return guarded(std::int32_t{1}, [&] {
        F &fn = *static_cast<F *>(user_data);
        if constexpr (std::is_invocable_v<F &, std::string_view, span<const std::uint16_t>>) {
            return go_on(fn, bytes, span<const std::uint16_t>(ids, size));
        } else {
            return go_on(fn, bytes);
        }
    });
}

template <class F>
std::int32_t on_batch(std::size_t index, const std::uint8_t *data, std::size_t size, const std::uint16_t *ids,
                      void *user_data) noexcept {
    std::string_view bytes(reinterpret_cast<const char *>(data), size);
    return guarded(std::int32_t{1}, [&] {
        F &fn = *static_cast<F *>(user_data);
        if constexpr (std::is_invocable_v<F &, std::size_t, std::string_view, span<const std::uint16_t>>) {
            return go_on(fn, index, bytes, span<const std::uint16_t>(ids, size));
        } else {
            return go_on(fn, index, bytes);
        }
    });
}

template <class F> std::int32_t on_metrics(const char *metrics, std::size_t size, void *user_data) noexcept {
    return guarded(
        std::int32_t{1}, [&] { return go_on(*static_cast<F *>(user_data), std::string_view(metrics, size)); });
}

template <class F>
std::int64_t on_read(void *user_data, std::uint64_t offset, std::uint8_t *out, std::size_t size) noexcept {
    return guarded(
        std::int64_t{-1}, [&]() -> std::int64_t { return (*static_cast<F *>(user_data))(offset, out, size); });
}

template <class T> void on_release(void *user_data) noexcept { delete static_cast<T *>(user_data); }

using progress_function = std::function<bool(std::uint64_t, std::uint64_t)>;

/* A progress callback owned by options, at an address that stays the same when the options are moved. */
template <class F> std::unique_ptr<progress_function> keep_progress(F fn) {
    return std::make_unique<progress_function>(
        [fn = std::move(fn)](std::uint64_t done, std::uint64_t total) mutable { return go_on(fn, done, total) == 0; });
}

/* Owns a handle that is created when it is first needed. An empty one stands for the defaults. */
template <class T, bolmo_status (*Create)(T **), void (*Delete)(T *)> class lazy : public handle<T, Delete> {
public:
    using handle<T, Delete>::handle;

protected:
    result<void> ensure() {
        if (*this) return {};
        T *raw = nullptr;
        auto done = outcome(Create(&raw));
        this->reset(raw);
        return done;
    }
    template <class F, class... A> result<void> change(F fn, A... args) {
        if (auto there = ensure(); !there) return there;
        return outcome(fn(this->get(), args...));
    }
};

} // namespace detail
/// @endcond

/** The library's version, such as "0.1.0". */
inline std::string_view version() { return bolmo_version(); }

/** The ABI version of the library. Below BOLMO_ABI_VERSION it lacks something that bolmo.h declares. */
inline std::uint32_t abi_version() { return bolmo_abi_version(); }

/** Number of handles. */
inline std::size_t handle_count() { return bolmo_handle_count(); }

/** Receives a line of the log: a level and its text. It must not call the library; its exceptions are lost. */
using log_function = std::function<void(bolmo_log_level, std::string_view)>;

/** Passes log messages up to `level` to `sink`; an empty sink turns logging off. */
inline result<void> try_set_log(bolmo_log_level level, log_function sink) {
    static std::mutex mutex;
    // Never deleted at the end of the program: other threads may still log then.
    static log_function *current = nullptr;
    bolmo_log_callback line = [](std::int32_t line_level, const char *text, std::size_t size, void *user_data) {
        auto &to = *static_cast<log_function *>(user_data);
#ifdef BOLMO_NO_EXCEPTIONS
        to(static_cast<bolmo_log_level>(line_level), std::string_view(text, size));
#else
        try {
            to(static_cast<bolmo_log_level>(line_level), std::string_view(text, size));
        } catch (...) { // Nobody could catch it.
        }
#endif
    };
    // A sink that calls this would otherwise wait for itself.
    std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
    if (!lock) return error(BOLMO_BUSY, "the log is being set by another call");
    std::unique_ptr<log_function> next;
    if (sink) next = std::make_unique<log_function>(std::move(sink));
    if (auto done = detail::call(bolmo_set_log_callback, level, next ? line : nullptr, next.get()); !done) return done;
    delete std::exchange(current, next.release());
    return {};
}

/** Bytes that the library allocated, such as a snapshot. */
class bytes : public handle<bolmo_bytes, bolmo_bytes_delete> {
public:
    using handle::handle;

    /** The bytes, valid as long as this object exists. */
    result<std::string_view> try_view() const {
        return detail::text<std::string_view, std::uint8_t>(bolmo_bytes_get, get());
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    std::string_view view() const { return try_view().value(); }
    /** @} */
#endif
};

/// @cond internal
namespace detail {

/* Calls a C function that returns a document through its last argument. */
template <class F, class... A> result<std::string> json(F fn, A... args) {
    auto made = make<bytes>(fn, args...);
    if (!made) return made.error();
    auto view = made->try_view();
    if (!view) return view.error();
    return std::string(*view);
}

} // namespace detail
/// @endcond

/** Assembles whole characters from chunks of bytes. */
class utf8_assembler : public detail::lazy<bolmo_utf8, bolmo_utf8_create, bolmo_utf8_delete> {
public:
    using lazy::lazy;

    /** Takes the next bytes and returns the text that is complete by now, valid until the next call. */
    result<std::string_view> try_push(std::string_view data) {
        if (auto there = ensure(); !there) return there.error();
        return detail::text<std::string_view>(bolmo_utf8_push, get(), data.data(), data.size());
    }
    /** Ends the text: returns U+FFFD if it stops inside a character. */
    result<std::string_view> try_finish() {
        if (auto there = ensure(); !there) return there.error();
        return detail::text<std::string_view>(bolmo_utf8_finish, get());
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    std::string_view push(std::string_view data) { return try_push(data).value(); }
    std::string_view finish() { return try_finish().value(); }
    /** @} */
#endif
};

/** The adapters of this machine at the time when the list was made. */
class adapters : public handle<bolmo_adapters, bolmo_adapters_delete> {
public:
    using handle::handle;

    /** Lists them, and marks the one that the engine option `adapter` with the same choice would use. */
    static result<adapters> try_list(std::string_view choice = {}) {
        return detail::make<adapters>(bolmo_adapters_list, choice.data(), choice.size());
    }
    /** Number of adapters. */
    result<std::size_t> try_count() const { return detail::read<std::size_t>(bolmo_adapters_count, get()); }
    /** A text property of the adapter at `index`. */
    result<std::string> try_text(std::size_t index, bolmo_adapter_text which) const {
        return detail::text<std::string>(bolmo_adapters_text, get(), index, which);
    }
    /** A numeric property of the adapter at `index`. */
    result<std::uint64_t> try_number(std::size_t index, bolmo_adapter_number which) const {
        return detail::read<std::uint64_t>(bolmo_adapters_number, get(), index, which);
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    static adapters list(std::string_view choice = {}) { return try_list(choice).value(); }
    std::size_t count() const { return try_count().value(); }
    std::string text(std::size_t index, bolmo_adapter_text which) const { return try_text(index, which).value(); }
    std::uint64_t number(std::size_t index, bolmo_adapter_number which) const {
        return try_number(index, which).value();
    }
    /** @} */
#endif
};

/** Options for opening an engine. Default: the best adapter. */
class engine_options
    : public detail::lazy<bolmo_engine_options, bolmo_engine_options_create, bolmo_engine_options_delete> {
public:
    using lazy::lazy;

    /** Selects the adapter: a part of its name, driver or backend, its number, "low-power", "cpu",
     * "software" or "auto". */
    result<void> try_adapter(std::string_view choice) {
        return change(bolmo_engine_options_set_adapter, choice.data(), choice.size());
    }
    /** Limits bindings to `bytes`; 0 for the adapter's own limit. */
    result<void> try_max_binding_bytes(std::uint64_t bytes) {
        return change(bolmo_engine_options_set_max_binding_bytes, bytes);
    }
    /** Sets how many threads compute on the CPU device, 1 to 256; 0 for one for each physical core. */
    result<void> try_threads(std::size_t threads) { return change(bolmo_engine_options_set_threads, threads); }
    /** Sets the arithmetic of products with matrices in q8 and q4 on the CPU device. */
    result<void> try_products(bolmo_products products) { return change(bolmo_engine_options_set_products, products); }
    /** Sets the size from which on the CPU device uses a tensor in its mapped file; UINT64_MAX copies all. */
    result<void> try_in_place_bytes(std::uint64_t bytes) {
        return change(bolmo_engine_options_set_in_place_bytes, bytes);
    }
    /** Sets the folder that caches compiled kernels; empty for none. */
    result<void> try_kernel_cache(std::string_view folder) {
        return change(bolmo_engine_options_set_kernel_cache, folder.data(), folder.size());
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    engine_options &adapter(std::string_view choice) { return try_adapter(choice).value(), *this; }
    engine_options &max_binding_bytes(std::uint64_t bytes) { return try_max_binding_bytes(bytes).value(), *this; }
    engine_options &threads(std::size_t threads) { return try_threads(threads).value(), *this; }
    engine_options &products(bolmo_products products) { return try_products(products).value(), *this; }
    engine_options &in_place_bytes(std::uint64_t bytes) { return try_in_place_bytes(bytes).value(), *this; }
    engine_options &kernel_cache(std::string_view folder) { return try_kernel_cache(folder).value(), *this; }
    /** @} */
#endif
};

/** An open device. */
class engine : public handle<bolmo_engine, bolmo_engine_delete> {
public:
    using handle::handle;

    /** Opens a device. */
    static result<engine> try_create(const engine_options &options = {}) {
        return detail::make<engine>(bolmo_engine_create, options.get());
    }
    /** A text property of the engine's adapter. */
    result<std::string> try_text(bolmo_adapter_text which) const {
        return detail::text<std::string>(bolmo_engine_text, get(), which);
    }
    /** A numeric property of the engine's adapter. */
    result<std::uint64_t> try_number(bolmo_adapter_number which) const {
        return detail::read<std::uint64_t>(bolmo_engine_number, get(), which);
    }
    /** Suspends the engine: nothing is submitted to the device until it is resumed. */
    result<void> try_suspend() { return detail::call(bolmo_engine_suspend, get()); }
    /** Resumes the engine. */
    result<void> try_resume() { return detail::call(bolmo_engine_resume, get()); }
    /** Releases memory that can be made again, and returns the number of bytes. */
    result<std::uint64_t> try_trim() { return detail::read<std::uint64_t>(bolmo_engine_trim, get()); }
    /** Releases the device at once, even if it is in use. */
    result<void> try_destroy_device() { return detail::call(bolmo_engine_destroy_device, get()); }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    static engine create(const engine_options &options = {}) { return try_create(options).value(); }
    std::string text(bolmo_adapter_text which) const { return try_text(which).value(); }
    std::uint64_t number(bolmo_adapter_number which) const { return try_number(which).value(); }
    void suspend() { try_suspend().value(); }
    void resume() { try_resume().value(); }
    std::uint64_t trim() { return try_trim().value(); }
    void destroy_device() { try_destroy_device().value(); }
    /** @} */
#endif
};

/** The files of a model, opened and checked but not loaded yet. */
class checkpoint : public handle<bolmo_checkpoint, bolmo_checkpoint_delete> {
public:
    using handle::handle;

    /** Opens a folder. */
    static result<checkpoint> try_open(std::string_view path) {
        return detail::make<checkpoint>(bolmo_checkpoint_open, path.data(), path.size());
    }
    /** A numeric property of the model. */
    result<std::uint64_t> try_number(bolmo_model_property which) const {
        return detail::read<std::uint64_t>(bolmo_checkpoint_number, get(), which);
    }
    /** Device memory that the weights will take in `format`, in bytes. */
    result<std::uint64_t> try_device_bytes(bolmo_format format) const {
        return detail::read<std::uint64_t>(bolmo_checkpoint_device_bytes, get(), format);
    }
    /** Those of them that need no memory of their own on the device of `engine`. */
    result<std::uint64_t> try_mapped_bytes(const engine &engine, bolmo_format format) const {
        return detail::read<std::uint64_t>(bolmo_checkpoint_mapped_bytes, get(), engine.get(), format);
    }
    /** Device memory that a session takes at most while it grows to `patches` patches, in bytes, on any device. */
    result<std::uint64_t> try_session_bytes(std::size_t patches) const {
        return detail::read<std::uint64_t>(bolmo_checkpoint_session_bytes, get(), patches);
    }
    /** The name under which the source model's tokenizer was published, or an empty text. */
    result<std::string> try_tokenizer_source() const {
        return detail::text<std::string>(bolmo_checkpoint_tokenizer_source, get());
    }
    /** Warnings about odd files that were accepted. */
    result<std::vector<std::string>> try_warnings() const {
        return detail::all_texts(bolmo_checkpoint_warning_count, bolmo_checkpoint_warning, get());
    }
    /** The configuration as the library understands it: JSON. */
    result<std::string> try_config_json() const {
        return detail::json(bolmo_checkpoint_config_json, get());
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    static checkpoint open(std::string_view path) { return try_open(path).value(); }
    std::uint64_t number(bolmo_model_property which) const { return try_number(which).value(); }
    std::uint64_t device_bytes(bolmo_format format) const { return try_device_bytes(format).value(); }
    std::uint64_t mapped_bytes(const engine &engine, bolmo_format format) const {
        return try_mapped_bytes(engine, format).value();
    }
    std::uint64_t session_bytes(std::size_t patches) const { return try_session_bytes(patches).value(); }
    std::string tokenizer_source() const { return try_tokenizer_source().value(); }
    std::vector<std::string> warnings() const { return try_warnings().value(); }
    std::string config_json() const { return try_config_json().value(); }
    /** @} */
#endif
};

/** The parts of a checkpoint that is not a folder. */
class checkpoint_builder : public detail::lazy<bolmo_checkpoint_builder, bolmo_checkpoint_builder_create,
                                               bolmo_checkpoint_builder_delete> {
public:
    using lazy::lazy;

    /** Sets the contents of `config.json`. */
    result<void> try_config(std::string_view json) {
        return change(bolmo_checkpoint_builder_set_config, json.data(), json.size());
    }
    /** Sets the contents of `tokenizer.json` and, if there is one, of `tokenizer_config.json`. */
    result<void> try_tokenizer(std::string_view json, std::string_view config_json = {}) {
        return change(bolmo_checkpoint_builder_set_tokenizer, json.data(), json.size(), config_json.data(),
                      config_json.size());
    }
    /** Adds a safetensors file in memory, which is copied. */
    result<void> try_add_copy(std::string_view name, std::string_view data) {
        return change(bolmo_checkpoint_builder_add_memory, name.data(), name.size(), data.data(), data.size(), nullptr,
                      nullptr);
    }
    /** Adds a safetensors file without a copy. `owner`, which has `data()` and `size()`, is kept while it is needed. */
    template <class O> result<void> try_add_memory(std::string_view name, O owner) {
        auto kept = std::make_unique<O>(std::move(owner));
        const void *data = kept->data();
        auto done = change(bolmo_checkpoint_builder_add_memory, name.data(), name.size(), data,
                           kept->size() * sizeof(*kept->data()), detail::on_release<O>, kept.get());
        if (done) kept.release();
        return done;
    }
    /**
     * Adds a safetensors file of `size` bytes. `read(offset, out, size)` returns the number of bytes read, 0 at the
     * end, or a negative number on failure. It is kept while it is needed, and may be called by several threads at
     * once.
     */
    template <class F> result<void> try_add_reader(std::string_view name, std::uint64_t size, F read) {
        auto kept = std::make_unique<F>(std::move(read));
        auto done = change(bolmo_checkpoint_builder_add_reader, name.data(), name.size(), size, detail::on_read<F>,
                           detail::on_release<F>, kept.get());
        if (done) kept.release();
        return done;
    }
    /** Opens the checkpoint that the parts make up. The builder is empty afterwards. */
    result<checkpoint> try_open() {
        if (auto there = ensure(); !there) return there.error();
        return detail::make<checkpoint>(bolmo_checkpoint_builder_open, get());
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    checkpoint_builder &config(std::string_view json) { return try_config(json).value(), *this; }
    checkpoint_builder &tokenizer(std::string_view json, std::string_view config_json = {}) {
        return try_tokenizer(json, config_json).value(), *this;
    }
    checkpoint_builder &add_copy(std::string_view name, std::string_view data) {
        return try_add_copy(name, data).value(), *this;
    }
    template <class O> checkpoint_builder &add_memory(std::string_view name, O owner) {
        return try_add_memory(name, std::move(owner)).value(), *this;
    }
    template <class F> checkpoint_builder &add_reader(std::string_view name, std::uint64_t size, F read) {
        return try_add_reader(name, size, std::move(read)).value(), *this;
    }
    checkpoint open() { return try_open().value(); }
    /** @} */
#endif
};

/** Options for loading a model. Default: f32, with the checkpoint's own tokenizer. For one thread at a time. */
class load_options : public detail::lazy<bolmo_load_options, bolmo_load_options_create, bolmo_load_options_delete> {
public:
    using lazy::lazy;

    /** Sets the format of matrices on the device. */
    result<void> try_format(bolmo_format format) { return change(bolmo_load_options_set_format, format); }
    /** Sets the format of one part's matrices, which overrides `format`. */
    result<void> try_part_format(bolmo_part part, bolmo_format format) {
        return change(bolmo_load_options_set_part_format, part, format);
    }
    /** Sets the path of the source model's `tokenizer.json`, or of its folder. */
    result<void> try_tokenizer_path(std::string_view path) {
        return change(bolmo_load_options_set_tokenizer_path, path.data(), path.size());
    }
    /** Sets the contents of `tokenizer.json` and, if there is one, of `tokenizer_config.json`. */
    result<void> try_tokenizer(std::string_view json, std::string_view config_json = {}) {
        return change(bolmo_load_options_set_tokenizer, json.data(), json.size(), config_json.data(),
                      config_json.size());
    }
    /** Sets the base of the rotary frequencies, instead of the checkpoint's. */
    result<void> try_rope_theta(double theta) { return change(bolmo_load_options_set_rope_theta, theta); }
    /** Sets the scaling of the rotary frequencies: `none`, or as in `yarn:factor=8,original=8192`. */
    result<void> try_rope_scaling(std::string_view scaling) {
        return change(bolmo_load_options_set_rope_scaling, scaling.data(), scaling.size());
    }
    /** Sets the progress callback `fn(done, total)`, which counts bytes of the checkpoint. */
    template <class F> result<void> try_progress(F fn) {
        auto kept = detail::keep_progress(std::move(fn));
        auto done = change(bolmo_load_options_set_progress, detail::on_progress<detail::progress_function>, kept.get());
        if (done) progress_ = std::move(kept);
        return done;
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    load_options &format(bolmo_format format) { return try_format(format).value(), *this; }
    load_options &part_format(bolmo_part part, bolmo_format format) {
        return try_part_format(part, format).value(), *this;
    }
    load_options &tokenizer_path(std::string_view path) { return try_tokenizer_path(path).value(), *this; }
    load_options &tokenizer(std::string_view json, std::string_view config_json = {}) {
        return try_tokenizer(json, config_json).value(), *this;
    }
    load_options &rope_theta(double theta) { return try_rope_theta(theta).value(), *this; }
    load_options &rope_scaling(std::string_view scaling) { return try_rope_scaling(scaling).value(), *this; }
    template <class F> load_options &progress(F fn) { return try_progress(std::move(fn)).value(), *this; }
    /** @} */
#endif

private:
    std::unique_ptr<detail::progress_function> progress_;
};

/** Options for scoring. Default: the model's own boundaries, no tensors. For one thread at a time. */
class score_options : public detail::lazy<bolmo_score_options, bolmo_score_options_create, bolmo_score_options_delete> {
public:
    using lazy::lazy;

    /** Sets which bytes or ids end a patch, one flag each; none for the model's own. */
    result<void> try_boundaries(span<const std::uint8_t> flags) {
        return change(bolmo_score_options_set_boundaries, flags.data(), flags.size());
    }
    /** Sets whether to keep every intermediate tensor. */
    result<void> try_tensors(bool keep) { return change(bolmo_score_options_set_tensors, keep); }
    /** Sets the progress callback `fn(done, total)`, which counts bytes. */
    template <class F> result<void> try_progress(F fn) {
        auto kept = detail::keep_progress(std::move(fn));
        auto done =
            change(bolmo_score_options_set_progress, detail::on_progress<detail::progress_function>, kept.get());
        if (done) progress_ = std::move(kept);
        return done;
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    score_options &boundaries(span<const std::uint8_t> flags) { return try_boundaries(flags).value(), *this; }
    score_options &tensors(bool keep) { return try_tensors(keep).value(), *this; }
    template <class F> score_options &progress(F fn) { return try_progress(std::move(fn)).value(), *this; }
    /** @} */
#endif

private:
    std::unique_ptr<detail::progress_function> progress_;
};

/** A tensor of a score, row by row. */
struct tensor {
    /** `rows` times `columns` numbers. */
    span<const float> data;
    /** Number of rows. */
    std::size_t rows = 0;
    /** Numbers per row. */
    std::size_t columns = 0;
};

/** The score of a text. */
class score : public handle<bolmo_score, bolmo_score_delete> {
public:
    using handle::handle;

    /** A number of the score. */
    result<double> try_number(bolmo_score_value which) const {
        return detail::read<double>(bolmo_score_number, get(), which);
    }
    /** The log-probability of each predicted byte, valid as long as this object exists. */
    result<span<const float>> try_logprobs(bolmo_logprob which) const {
        return detail::items<float>(bolmo_score_logprobs, get(), which);
    }
    /** Which bytes or ids end a patch, one flag each. Valid as long as this object exists. */
    result<span<const std::uint8_t>> try_boundaries() const {
        return detail::items<std::uint8_t>(bolmo_score_boundaries, get());
    }
    /** A tensor, valid as long as this object exists. */
    result<bolmo::tensor> try_tensor(bolmo_tensor which) const {
        const float *data = nullptr;
        bolmo::tensor found;
        auto done = detail::call(bolmo_score_tensor, get(), which, &data, &found.rows, &found.columns);
        if (!done) return done.error();
        found.data = span<const float>(data, found.rows * found.columns);
        return found;
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    double number(bolmo_score_value which) const { return try_number(which).value(); }
    span<const float> logprobs(bolmo_logprob which) const { return try_logprobs(which).value(); }
    span<const std::uint8_t> boundaries() const { return try_boundaries().value(); }
    bolmo::tensor tensor(bolmo_tensor which) const { return try_tensor(which).value(); }
    /** @} */
#endif
};

/** A model on a device. Any number of threads may use it at once. */
class model : public handle<bolmo_model, bolmo_model_delete> {
public:
    using handle::handle;

    /** Loads the checkpoint's weights onto the engine's device. */
    static result<model> try_load(
        const engine &engine, const checkpoint &checkpoint, const load_options &options = {}) {
        return detail::make<model>(bolmo_model_load, engine.get(), checkpoint.get(), options.get());
    }
    /** A numeric property of the model. */
    result<std::uint64_t> try_number(bolmo_model_property which) const {
        return detail::read<std::uint64_t>(bolmo_model_number, get(), which);
    }
    /** Device memory that the weights take, in bytes. */
    result<std::uint64_t> try_device_bytes() const {
        return detail::read<std::uint64_t>(bolmo_model_device_bytes, get());
    }
    /** Those of them that are used where the checkpoint's files are mapped. */
    result<std::uint64_t> try_mapped_bytes() const {
        return detail::read<std::uint64_t>(bolmo_model_mapped_bytes, get());
    }
    /** Device memory that a session takes at most while it grows to `patches` patches, in bytes. */
    result<std::uint64_t> try_session_bytes(std::size_t patches) const {
        return detail::read<std::uint64_t>(bolmo_model_session_bytes, get(), patches);
    }
    /** Fingerprint of configuration, weights and format. Snapshots restore only on models with the same one. */
    result<std::array<std::uint8_t, BOLMO_FINGERPRINT_SIZE>> try_fingerprint() const {
        std::array<std::uint8_t, BOLMO_FINGERPRINT_SIZE> found{};
        if (auto done = detail::call(bolmo_model_fingerprint, get(), found.data()); !done) return done.error();
        return found;
    }
    /** Warnings about odd files that were accepted. */
    result<std::vector<std::string>> try_warnings() const {
        return detail::all_texts(bolmo_model_warning_count, bolmo_model_warning, get());
    }
    /** Scores a text, any bytes. */
    result<bolmo::score> try_score(std::string_view text, const score_options &options = {}) const {
        return detail::make<bolmo::score>(bolmo_model_score, get(), text.data(), text.size(), options.get());
    }
    /** Scores plain ids as they are. */
    result<bolmo::score> try_score_ids(span<const std::uint32_t> ids, const score_options &options = {}) const {
        return detail::make<bolmo::score>(bolmo_model_score_ids, get(), ids.data(), ids.size(), options.get());
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    static model load(const engine &engine, const checkpoint &checkpoint, const load_options &options = {}) {
        return try_load(engine, checkpoint, options).value();
    }
    std::uint64_t number(bolmo_model_property which) const { return try_number(which).value(); }
    std::uint64_t device_bytes() const { return try_device_bytes().value(); }
    std::uint64_t mapped_bytes() const { return try_mapped_bytes().value(); }
    std::uint64_t session_bytes(std::size_t patches) const { return try_session_bytes(patches).value(); }
    std::array<std::uint8_t, BOLMO_FINGERPRINT_SIZE> fingerprint() const { return try_fingerprint().value(); }
    std::vector<std::string> warnings() const { return try_warnings().value(); }
    bolmo::score score(std::string_view text, const score_options &options = {}) const {
        return try_score(text, options).value();
    }
    bolmo::score score_ids(span<const std::uint32_t> ids, const score_options &options = {}) const {
        return try_score_ids(ids, options).value();
    }
    /** @} */
#endif
};

/** A pattern that a whole text must match. Any number of threads may use it at once. */
class constraint : public handle<bolmo_constraint, bolmo_constraint_delete> {
public:
    using handle::handle;

    /** Creates a constraint from a regular expression in the syntax of Rust's regex crate. */
    static result<constraint> try_regex(std::string_view pattern) {
        return detail::make<constraint>(bolmo_constraint_create_regex, pattern.data(), pattern.size());
    }
    /** Creates a constraint from a JSON schema; the common subset of keywords is supported. */
    static result<constraint> try_json_schema(std::string_view schema) {
        return detail::make<constraint>(bolmo_constraint_create_json_schema, schema.data(), schema.size());
    }
    /** Whether a whole text matches. */
    result<bool> try_matches(std::string_view text) const {
        return detail::read<bool>(bolmo_constraint_matches, get(), text.data(), text.size());
    }
    /** Length of the shortest matching text, in bytes. */
    result<std::size_t> try_shortest() const { return detail::read<std::size_t>(bolmo_constraint_shortest, get()); }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    static constraint regex(std::string_view pattern) { return try_regex(pattern).value(); }
    static constraint json_schema(std::string_view schema) { return try_json_schema(schema).value(); }
    bool matches(std::string_view text) const { return try_matches(text).value(); }
    std::size_t shortest() const { return try_shortest().value(); }
    /** @} */
#endif
};

/** The state of a text within a match. */
class matcher : public handle<bolmo_matcher, bolmo_matcher_delete> {
public:
    using handle::handle;

    /** Creates a matcher at the start of a text. */
    static result<matcher> try_create(const constraint &constraint) {
        return detail::make<matcher>(bolmo_matcher_create, constraint.get());
    }
    /** Creates an independent matcher at the same place. */
    result<matcher> try_clone() const { return detail::make<matcher>(bolmo_matcher_clone, get()); }
    /**
     * What may follow. With `remaining` above 0, only bytes after which a match can be completed within that many
     * bytes.
     */
    result<allowed_bytes> try_allowed(std::size_t remaining = 0) const {
        allowed_bytes found{};
        if (auto done = detail::call(bolmo_matcher_allowed, get(), remaining, found.data()); !done) return done.error();
        return found;
    }
    /** Takes the next bytes of the text. */
    result<void> try_advance(std::string_view text) {
        return detail::call(bolmo_matcher_advance, get(), text.data(), text.size());
    }
    /** Whether the whole text so far matches. */
    result<bool> try_is_match() const { return detail::read<bool>(bolmo_matcher_is_match, get()); }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    static matcher create(const constraint &constraint) { return try_create(constraint).value(); }
    matcher clone() const { return try_clone().value(); }
    allowed_bytes allowed(std::size_t remaining = 0) const { return try_allowed(remaining).value(); }
    void advance(std::string_view text) { try_advance(text).value(); }
    bool is_match() const { return try_is_match().value(); }
    /** @} */
#endif
};

/** Options for generating. Default: 256 bytes, greedy. */
class generate_options
    : public detail::lazy<bolmo_generate_options, bolmo_generate_options_create, bolmo_generate_options_delete> {
public:
    using lazy::lazy;

    /** Sets the maximum number of bytes to generate. */
    result<void> try_max_bytes(std::size_t n) { return change(bolmo_generate_options_set_max_bytes, n); }
    /** Sets the divisor of the log-probabilities; 0 chooses the most probable id. */
    result<void> try_temperature(float value) { return change(bolmo_generate_options_set_temperature, value); }
    /** Samples from the `top_k` most probable bytes only; 0 is off. */
    result<void> try_top_k(std::size_t k) { return change(bolmo_generate_options_set_top_k, k); }
    /** Samples from the most probable bytes whose probabilities add up to `top_p` only; 1 is off. */
    result<void> try_top_p(float p) { return change(bolmo_generate_options_set_top_p, p); }
    /** Samples only from bytes with at least `min_p` times the highest probability; 0 is off. */
    result<void> try_min_p(float p) { return change(bolmo_generate_options_set_min_p, p); }
    /** Discourages bytes among the last `window` ids, if above 1. */
    result<void> try_repetition_penalty(float penalty, std::size_t window) {
        return change(bolmo_generate_options_set_repetition_penalty, penalty, window);
    }
    /** Adds a bias to the logits of `byte`. */
    result<void> try_byte_bias(std::uint8_t byte, float bias) {
        return change(bolmo_generate_options_set_byte_bias, byte, bias);
    }
    /** Adds a bias to the logits of the end of the text. */
    result<void> try_end_bias(float bias) { return change(bolmo_generate_options_set_end_bias, bias); }
    /** Adds a bias to the logits of all ids that end a patch. */
    result<void> try_boundary_bias(float bias) { return change(bolmo_generate_options_set_boundary_bias, bias); }
    /** Sets the seed of the random numbers. */
    result<void> try_seed(std::uint64_t seed) { return change(bolmo_generate_options_set_seed, seed); }
    /** Adds a stop string. */
    result<void> try_add_stop(std::string_view stop) {
        return change(bolmo_generate_options_add_stop, stop.data(), stop.size());
    }
    /** Sets whether to keep the log-probability of each id. */
    result<void> try_logprobs(bool keep) { return change(bolmo_generate_options_set_logprobs, keep); }
    /** Sets the constraint that the text must match; an empty handle for none. */
    result<void> try_constraint(const bolmo::constraint &constraint) {
        const bolmo_constraint *raw = constraint.get();
        return change(bolmo_generate_options_set_constraint, raw);
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    generate_options &max_bytes(std::size_t n) { return try_max_bytes(n).value(), *this; }
    generate_options &temperature(float value) { return try_temperature(value).value(), *this; }
    generate_options &top_k(std::size_t k) { return try_top_k(k).value(), *this; }
    generate_options &top_p(float p) { return try_top_p(p).value(), *this; }
    generate_options &min_p(float p) { return try_min_p(p).value(), *this; }
    generate_options &repetition_penalty(float penalty, std::size_t window) {
        return try_repetition_penalty(penalty, window).value(), *this;
    }
    generate_options &byte_bias(std::uint8_t byte, float bias) { return try_byte_bias(byte, bias).value(), *this; }
    generate_options &end_bias(float bias) { return try_end_bias(bias).value(), *this; }
    generate_options &boundary_bias(float bias) { return try_boundary_bias(bias).value(), *this; }
    generate_options &seed(std::uint64_t seed) { return try_seed(seed).value(), *this; }
    generate_options &logprobs(bool keep) { return try_logprobs(keep).value(), *this; }
    generate_options &add_stop(std::string_view stop) { return try_add_stop(stop).value(), *this; }
    generate_options &constraint(const bolmo::constraint &constraint) {
        return try_constraint(constraint).value(), *this;
    }
    /** @} */
#endif
};

/** The result of a generation. */
class generation : public handle<bolmo_generation, bolmo_generation_delete> {
public:
    using handle::handle;

    /** Why it ended. */
    result<bolmo_stop> try_stop() const { return detail::read<std::int32_t, bolmo_stop>(bolmo_generation_stop, get()); }
    /** The text without a stop string, valid as long as this object exists. */
    result<std::string_view> try_bytes() const {
        return detail::text<std::string_view, std::uint8_t>(bolmo_generation_bytes, get());
    }
    /** The text as a string. */
    result<std::string> try_text() const {
        return detail::text<std::string, std::uint8_t>(bolmo_generation_bytes, get());
    }
    /** The ids as they were chosen, valid as long as this object exists. */
    result<span<const std::uint16_t>> try_ids() const {
        return detail::items<std::uint16_t>(bolmo_generation_ids, get());
    }
    /** The log-probability of each id, valid as long as this object exists. */
    result<span<const float>> try_logprobs(bolmo_logprob which) const {
        return detail::items<float>(bolmo_generation_logprobs, get(), which);
    }
    /** Number of patches that the ids ended. */
    result<std::size_t> try_patches() const { return detail::read<std::size_t>(bolmo_generation_patches, get()); }
    /** Whether the whole text matches the constraint. */
    result<bool> try_matched() const { return detail::read<bool>(bolmo_generation_matched, get()); }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    bolmo_stop stop() const { return try_stop().value(); }
    std::string_view bytes() const { return try_bytes().value(); }
    std::string text() const { return try_text().value(); }
    span<const std::uint16_t> ids() const { return try_ids().value(); }
    span<const float> logprobs(bolmo_logprob which) const { return try_logprobs(which).value(); }
    std::size_t patches() const { return try_patches().value(); }
    bool matched() const { return try_matched().value(); }
    /** @} */
#endif
};

/** A saved state of a session, to rewind to. */
class session_checkpoint : public handle<bolmo_session_checkpoint, bolmo_session_checkpoint_delete> {
public:
    using handle::handle;
};

/** One sequence on a model. For one thread at a time, except for cancel(). */
class session : public handle<bolmo_session, bolmo_session_delete> {
public:
    using handle::handle;

    /** Creates a session without any text. */
    static result<session> try_create(const model &model) {
        return detail::make<session>(bolmo_session_create, model.get());
    }
    /** Restores a session from a snapshot. */
    static result<session> try_restore(const model &model, std::string_view snapshot) {
        return detail::make<session>(bolmo_session_restore, model.get(), snapshot.data(), snapshot.size());
    }
    /** Creates another session with the same text, independent from here on. */
    result<session> try_clone() { return detail::make<session>(bolmo_session_clone, get()); }
    /** Appends the id that begins a text. */
    result<void> try_append_bos() { return detail::call(bolmo_session_append_bos, get()); }
    /** Appends text, any bytes. */
    result<void> try_append(std::string_view text) {
        return detail::call(bolmo_session_append, get(), text.data(), text.size(), nullptr, nullptr);
    }
    /** The same, with `progress(done, total)`. */
    template <class F> result<void> try_append(std::string_view text, F progress) {
        return detail::call(bolmo_session_append, get(), text.data(), text.size(), detail::on_progress<F>, &progress);
    }
    /** Appends plain ids. */
    result<void> try_append_ids(span<const std::uint32_t> ids) {
        return detail::call(bolmo_session_append_ids, get(), ids.data(), ids.size(), nullptr, nullptr);
    }
    /** The same, with `progress(done, total)`. */
    template <class F> result<void> try_append_ids(span<const std::uint32_t> ids, F progress) {
        return detail::call(bolmo_session_append_ids, get(), ids.data(), ids.size(), detail::on_progress<F>, &progress);
    }
    /** Generates until something ends it. */
    result<generation> try_generate(const generate_options &options = {}) {
        return detail::make<generation>(bolmo_session_generate, get(), options.get(), nullptr, nullptr);
    }
    /**
     * The same, with `on_piece(bytes)` or `on_piece(bytes, ids)` for chunks of output: a std::string_view, and a
     * span<const std::uint16_t> with each byte's id.
     */
    template <class F> result<generation> try_generate(const generate_options &options, F on_piece) {
        return detail::make<generation>(bolmo_session_generate, get(), options.get(), detail::on_piece<F>, &on_piece);
    }
    /** The logits of the next id. */
    result<std::array<float, logit_count>> try_logits(float boundary_bias = 0) {
        std::array<float, logit_count> found{};
        auto done = detail::call(bolmo_session_logits, get(), boundary_bias, found.data(), found.size());
        if (!done) return done.error();
        return found;
    }
    /** Appends a chosen id. */
    result<void> try_push(std::uint16_t id) { return detail::call(bolmo_session_push, get(), id); }
    /** Cancels the running call, or the next one if none is running. From any thread. */
    result<void> try_cancel() const { return detail::call(bolmo_session_cancel, get()); }
    /** Withdraws a cancel that arrived too late. */
    result<void> try_reset_cancel() const { return detail::call(bolmo_session_reset_cancel, get()); }
    /** Bytes done and bytes in all of the running append or generation, or of the last one. From any thread. */
    result<std::pair<std::uint64_t, std::uint64_t>> try_progress() const {
        std::pair<std::uint64_t, std::uint64_t> found{};
        auto done = detail::call(bolmo_session_progress, get(), &found.first, &found.second);
        if (!done) return done.error();
        return found;
    }
    /** Number of ids that the session holds. From any thread, as the numbers of patches and of bytes. */
    result<std::size_t> try_length() const { return detail::read<std::size_t>(bolmo_session_length, get()); }
    /** The ids, starting with number `first`. */
    result<std::vector<std::uint16_t>> try_ids(std::size_t first = 0) const {
        auto length = try_length();
        if (!length) return length.error();
        std::vector<std::uint16_t> ids(*length > first ? *length - first : 0);
        auto count = detail::read<std::size_t>(bolmo_session_ids, get(), first, ids.data(), ids.size());
        if (!count) return count.error();
        ids.resize(*count);
        return ids;
    }
    /** Number of patches that have passed through the global blocks. */
    result<std::size_t> try_patches() const { return detail::read<std::size_t>(bolmo_session_patches, get()); }
    /** Device memory of the sequence, in bytes. */
    result<std::uint64_t> try_device_bytes() const {
        return detail::read<std::uint64_t>(bolmo_session_device_bytes, get());
    }
    /** Saves the state, to rewind to. */
    result<session_checkpoint> try_checkpoint() {
        return detail::make<session_checkpoint>(bolmo_session_checkpoint_create, get());
    }
    /** Rewinds the session to a checkpoint, or moves it to one of another session. */
    result<void> try_rewind(const session_checkpoint &checkpoint) {
        return detail::call(bolmo_session_rewind, get(), checkpoint.get());
    }
    /** Saves the session as bytes. */
    result<bytes> try_snapshot() { return detail::make<bytes>(bolmo_session_snapshot, get()); }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    static session create(const model &model) { return try_create(model).value(); }
    static session restore(const model &model, std::string_view snapshot) {
        return try_restore(model, snapshot).value();
    }
    session clone() { return try_clone().value(); }
    void append_bos() { try_append_bos().value(); }
    void append(std::string_view text) { try_append(text).value(); }
    template <class F> void append(std::string_view text, F progress) { try_append(text, std::move(progress)).value(); }
    void append_ids(span<const std::uint32_t> ids) { try_append_ids(ids).value(); }
    template <class F> void append_ids(span<const std::uint32_t> ids, F progress) {
        try_append_ids(ids, std::move(progress)).value();
    }
    generation generate(const generate_options &options = {}) { return try_generate(options).value(); }
    template <class F> generation generate(const generate_options &options, F on_piece) {
        return try_generate(options, std::move(on_piece)).value();
    }
    std::array<float, logit_count> logits(float boundary_bias = 0) { return try_logits(boundary_bias).value(); }
    void push(std::uint16_t id) { try_push(id).value(); }
    void cancel() const { try_cancel().value(); }
    void reset_cancel() const { try_reset_cancel().value(); }
    std::pair<std::uint64_t, std::uint64_t> progress() const { return try_progress().value(); }
    std::size_t length() const { return try_length().value(); }
    std::vector<std::uint16_t> ids(std::size_t first = 0) const { return try_ids(first).value(); }
    std::size_t patches() const { return try_patches().value(); }
    std::uint64_t device_bytes() const { return try_device_bytes().value(); }
    session_checkpoint checkpoint() { return try_checkpoint().value(); }
    void rewind(const session_checkpoint &checkpoint) { try_rewind(checkpoint).value(); }
    bytes snapshot() { return try_snapshot().value(); }
    /** @} */
#endif
};

/**
 * Generates on several sessions together, each with its own options, and returns a result for each. Without options the
 * defaults apply; else there must be as many as sessions. `on_piece(index, bytes)` or `on_piece(index, bytes, ids)`
 * receives the sessions' output, and a `bytes` whose data() is null at the end of each.
 */
template <class F>
result<std::vector<result<generation>>> try_generate_batch(
    span<session *const> sessions, span<const generate_options *const> options, F on_piece) {
    if (!options.empty() && options.size() != sessions.size()) {
        return error(BOLMO_INVALID_ARGUMENT, "options: expected none, or as many as sessions");
    }
    std::vector<bolmo_session *> raw;
    std::vector<const bolmo_generate_options *> raw_options;
    for (const session *one : sessions) raw.push_back(one ? one->get() : nullptr);
    for (const generate_options *one : options) raw_options.push_back(one ? one->get() : nullptr);
    std::vector<bolmo_generation *> made(raw.size());
    const auto unwritten = static_cast<bolmo_status>(-1);
    std::vector<bolmo_status> statuses(raw.size(), unwritten);
    auto status =
        bolmo_generate_batch(raw.data(), options.empty() ? nullptr : raw_options.data(), raw.size(),
                             detail::on_batch<F>, &on_piece, made.data(), statuses.data());
    bolmo::error failure = error::last(status);
    // The call was refused as a whole.
    if (status != BOLMO_OK && (statuses.empty() || statuses[0] == unwritten)) return failure;
    bool first = true;
    std::vector<result<generation>> all;
    for (std::size_t i = 0; i < made.size(); i++) {
        if (statuses[i] == BOLMO_OK) {
            all.emplace_back(generation(made[i]));
        } else {
            // The message is that of the first failure.
            all.emplace_back(first ? failure : error(statuses[i], bolmo_status_name(statuses[i])));
            first = false;
        }
    }
    // An exception of the callback, which has ended the generations.
    if (auto done = detail::outcome(BOLMO_OK); !done) return done.error();
    return result<std::vector<result<generation>>>(std::move(all));
}

/** The same without a callback. */
inline result<std::vector<result<generation>>> try_generate_batch(
    span<session *const> sessions, span<const generate_options *const> options = {}) {
    return try_generate_batch(sessions, options, [](std::size_t, std::string_view) {});
}

#ifndef BOLMO_NO_EXCEPTIONS
/** As with `try_` in front, but throws. */
template <class... A> std::vector<result<generation>> generate_batch(span<session *const> sessions, A &&...rest) {
    return try_generate_batch(sessions, std::forward<A>(rest)...).value();
}
#endif

/** Generations on several sessions, which may join and leave. One thread runs it; any thread may add sessions. */
class batch : public handle<bolmo_batch, bolmo_batch_delete> {
public:
    using handle::handle;

    /** Creates a batch without sessions. */
    static result<batch> try_create() { return detail::make<batch>(bolmo_batch_create); }
    /** Adds a session, which is in use until its generation has ended, and returns its number in the batch. */
    result<std::size_t> try_add(session &session, const generate_options &options = {}) const {
        return detail::read<std::size_t>(bolmo_batch_add, get(), session.get(), options.get());
    }
    /** Generates until the generations of all sessions have ended. */
    result<void> try_run() const { return detail::call(bolmo_batch_run, get(), nullptr, nullptr); }
    /**
     * The same, with `on_piece(index, bytes)` or `on_piece(index, bytes, ids)`. At the end of a session's generation
     * data() of `bytes` is null. An exception ends all generations.
     */
    template <class F> result<void> try_run(F on_piece) const {
        return detail::call(bolmo_batch_run, get(), detail::on_batch<F>, &on_piece);
    }
    /** The result of a session whose generation has ended, once. */
    result<bolmo::generation> try_generation(std::size_t index) const {
        return detail::make<bolmo::generation>(bolmo_batch_generation, get(), index);
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    static batch create() { return try_create().value(); }
    std::size_t add(session &session, const generate_options &options = {}) const {
        return try_add(session, options).value();
    }
    void run() const { try_run().value(); }
    template <class F> void run(F on_piece) const { try_run(std::move(on_piece)).value(); }
    bolmo::generation generation(std::size_t index) const { return try_generation(index).value(); }
    /** @} */
#endif
};

/** Chooses ids, with its own stream of random numbers. */
class sampler : public handle<bolmo_sampler, bolmo_sampler_delete> {
public:
    using handle::handle;

    /** Creates a sampler at the start of its seed's random numbers. */
    static result<sampler> try_create(const generate_options &options = {}) {
        return detail::make<sampler>(bolmo_sampler_create, options.get());
    }
    /** Chooses the id that follows the session's text; `allowed`, if given, says which bytes may come. */
    result<std::uint16_t> try_choose(session &session, span<const float> logits,
                                     const allowed_bytes *allowed = nullptr) {
        const std::uint8_t *flags = allowed ? allowed->data() : nullptr;
        return detail::read<std::uint16_t>(
            bolmo_sampler_choose, get(), session.get(), logits.data(), logits.size(), flags);
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    static sampler create(const generate_options &options = {}) { return try_create(options).value(); }
    std::uint16_t choose(session &session, span<const float> logits, const allowed_bytes *allowed = nullptr) {
        return try_choose(session, logits, allowed).value();
    }
    /** @} */
#endif
};

/** Options for merging. The paths must be set. For one thread at a time. */
class merge_options
    : public detail::lazy<bolmo_merge_options, bolmo_merge_options_create, bolmo_merge_options_delete> {
public:
    using lazy::lazy;

    /** Sets the folder of the Bolmo model. */
    result<void> try_bolmo(std::string_view path) {
        return change(bolmo_merge_options_set_bolmo, path.data(), path.size());
    }
    /** Sets the folder of the subword model that it was made from. */
    result<void> try_base(std::string_view path) {
        return change(bolmo_merge_options_set_base, path.data(), path.size());
    }
    /** Sets the folder of a model that was trained from the base model. */
    result<void> try_post_trained(std::string_view path) {
        return change(bolmo_merge_options_set_post_trained, path.data(), path.size());
    }
    /** Sets the factor for the difference between the two. */
    result<void> try_alpha(float alpha) { return change(bolmo_merge_options_set_alpha, alpha); }
    /** Sets whether the suffix table changes too. */
    result<void> try_embeddings(bool embeddings) { return change(bolmo_merge_options_set_embeddings, embeddings); }
    /** Sets the progress callback `fn(done, total)`, which counts bytes of weight files. */
    template <class F> result<void> try_progress(F fn) {
        auto kept = detail::keep_progress(std::move(fn));
        auto done =
            change(bolmo_merge_options_set_progress, detail::on_progress<detail::progress_function>, kept.get());
        if (done) progress_ = std::move(kept);
        return done;
    }
    /** Writes the merged model to the folder `out`; returns the report as JSON. */
    result<std::string> try_merge(std::string_view out) {
        if (auto there = ensure(); !there) return there.error();
        return detail::json(bolmo_merge, get(), out.data(), out.size());
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    merge_options &bolmo(std::string_view path) { return try_bolmo(path).value(), *this; }
    merge_options &base(std::string_view path) { return try_base(path).value(), *this; }
    merge_options &post_trained(std::string_view path) { return try_post_trained(path).value(), *this; }
    merge_options &alpha(float alpha) { return try_alpha(alpha).value(), *this; }
    merge_options &embeddings(bool embeddings) { return try_embeddings(embeddings).value(), *this; }
    template <class F> merge_options &progress(F fn) { return try_progress(std::move(fn)).value(), *this; }
    std::string merge(std::string_view out) { return try_merge(out).value(); }
    /** @} */
#endif

private:
    std::unique_ptr<detail::progress_function> progress_;
};

/** Options of a training run: what to train, and on which texts. */
class trainer_options
    : public detail::lazy<bolmo_trainer_options, bolmo_trainer_options_create, bolmo_trainer_options_delete> {
public:
    using lazy::lazy;

    /** Sets the kind of training. */
    result<void> try_kind(bolmo_train_kind kind) { return change(bolmo_trainer_options_set_kind, kind); }
    /** Sets the configuration, a text in TOML. */
    result<void> try_config(std::string_view toml) {
        return change(bolmo_trainer_options_set_config, toml.data(), toml.size());
    }
    /** Replaces or adds one value of the configuration: `key=value`. */
    result<void> try_set(std::string_view pair) {
        return change(bolmo_trainer_options_set_override, pair.data(), pair.size());
    }
    /** Adds a text to train on. */
    result<void> try_add_text(std::string_view text) {
        return change(bolmo_trainer_options_add_text, text.data(), text.size());
    }
    /** Adds a text to evaluate on. */
    result<void> try_add_held_out_text(std::string_view text) {
        return change(bolmo_trainer_options_add_held_out_text, text.data(), text.size());
    }
    /** Sets whether the run continues from its last snapshot. */
    result<void> try_resume(bool resume) { return change(bolmo_trainer_options_set_resume, resume ? 1 : 0); }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    trainer_options &kind(bolmo_train_kind kind) { return try_kind(kind).value(), *this; }
    trainer_options &config(std::string_view toml) { return try_config(toml).value(), *this; }
    trainer_options &set(std::string_view pair) { return try_set(pair).value(), *this; }
    trainer_options &add_text(std::string_view text) { return try_add_text(text).value(), *this; }
    trainer_options &add_held_out_text(std::string_view text) { return try_add_held_out_text(text).value(), *this; }
    trainer_options &resume(bool resume) { return try_resume(resume).value(), *this; }
    /** @} */
#endif
};

/** A training run. For one thread at a time, except for cancel(). */
class trainer : public handle<bolmo_trainer, bolmo_trainer_delete> {
public:
    using handle::handle;

    /** Reads data and model, and prepares the run on the device. */
    static result<trainer> try_create(const engine &engine, const trainer_options &options) {
        return detail::make<trainer>(bolmo_trainer_create, engine.get(), options.get());
    }
    /** Runs `count` steps, or as many as are left. */
    result<void> try_step(std::uint64_t count = 1) {
        return detail::call(bolmo_trainer_step, get(), count, nullptr, nullptr);
    }
    /** The same, with `on_metrics(json)` after each step: a std::string_view. */
    template <class F> result<void> try_step(std::uint64_t count, F on_metrics) {
        return detail::call(bolmo_trainer_step, get(), count, detail::on_metrics<F>, &on_metrics);
    }
    /** Stops after the current step, or before the next one if none is running. From any thread. */
    result<void> try_cancel() const { return detail::call(bolmo_trainer_cancel, get()); }
    /** Withdraws a cancel that arrived too late. */
    result<void> try_reset_cancel() const { return detail::call(bolmo_trainer_reset_cancel, get()); }
    /** Number of completed steps. */
    result<std::uint64_t> try_steps() const { return detail::read<std::uint64_t>(bolmo_trainer_steps, get()); }
    /** Metrics on the held-out text, as JSON. */
    result<std::string> try_evaluate() { return detail::json(bolmo_trainer_evaluate, get()); }
    /** Writes a snapshot to the run's folder. */
    result<void> try_save() { return detail::call(bolmo_trainer_save, get()); }
    /** Writes the model as a folder. */
    result<void> try_export_model(std::string_view path) {
        return detail::call(bolmo_trainer_export, get(), path.data(), path.size());
    }

#ifndef BOLMO_NO_EXCEPTIONS
    /** @name Forms that throw
     * @{ */
    /** As with `try_` in front, but throws. */
    static trainer create(const engine &engine, const trainer_options &options) {
        return try_create(engine, options).value();
    }
    void step(std::uint64_t count = 1) { try_step(count).value(); }
    template <class F> void step(std::uint64_t count, F on_metrics) { try_step(count, std::move(on_metrics)).value(); }
    void cancel() const { try_cancel().value(); }
    void reset_cancel() const { try_reset_cancel().value(); }
    std::uint64_t steps() const { return try_steps().value(); }
    std::string evaluate() { return try_evaluate().value(); }
    void save() { try_save().value(); }
    void export_model(std::string_view path) { try_export_model(path).value(); }
    /** @} */
#endif
};

#ifndef BOLMO_NO_EXCEPTIONS
/** try_set_log, but throws. */
inline void set_log(bolmo_log_level level, log_function sink) { try_set_log(level, std::move(sink)).value(); }
#endif

} // namespace bolmo

#endif // BOLMO_HPP

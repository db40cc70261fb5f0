//! The part of JNI that the native methods use.

use std::ffi::CStr;
use std::sync::OnceLock;

use bolmo::status::{bolmo_last_error_message, bolmo_status};
use jni_sys::{
    JNI_EDETACHED, JNI_OK, JNI_VERSION_1_6, JNIEnv, JavaVM, jboolean, jbyte, jclass, jdouble, jfloat, jint, jlong,
    jmethodID, jobject, jshort, jthrowable, jvalue,
};

/// Why a native method has no result.
pub(crate) enum Failure {
    /// A function of the C ABI failed; the message is this thread's.
    Status(bolmo_status),
    /// A Java exception is pending.
    Pending,
    /// An argument is wrong.
    Argument(String),
    /// Another thread is doing the same.
    Busy(&'static str),
    /// A bug of this crate.
    Bug(&'static str),
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// The environment of the current thread.
#[derive(Clone, Copy)]
pub(crate) struct Env(*mut JNIEnv);

/// Calls a function of JNI.
macro_rules! jni {
    ($env:expr, $version:ident, $function:ident $(, $argument:expr)*) => {{
        let env = $env.0;
        // SAFETY: an `Env` belongs to the current thread. References come from JNI and were not deleted, lengths and
        // signatures are true, and no exception is pending except for functions that allow one.
        unsafe { ((**env).$version.$function)(env $(, $argument)*) }
    }};
}

/// What `JNI_OnLoad` looks up.
pub(crate) struct Ids {
    vm: *mut JavaVM,
    native: jclass,
    exception: jmethodID,
    pub(crate) progress: jmethodID,
    pub(crate) piece: jmethodID,
    pub(crate) metrics: jmethodID,
    pub(crate) read: jmethodID,
    pub(crate) log: jmethodID,
}

// SAFETY: the Java VM may be used from any thread, and so may global references and the ids of methods.
unsafe impl Send for Ids {}
// SAFETY: as above.
unsafe impl Sync for Ids {}

static IDS: OnceLock<Ids> = OnceLock::new();

/// The ids that `JNI_OnLoad` looked up.
pub(crate) fn ids() -> Result<&'static Ids> {
    IDS.get().ok_or(Failure::Bug("JNI_OnLoad has not run"))
}

/// A type of a native method's arguments and result.
pub(crate) trait Java: Copy {
    /// Its type signature.
    const SIGNATURE: &'static str;
    /// What is returned beside an exception.
    const NONE: Self;
}

macro_rules! java {
    ($($type:ty = $signature:literal, $none:expr;)*) => {$(
        impl Java for $type {
            const SIGNATURE: &'static str = $signature;
            const NONE: Self = $none;
        }
    )*};
}
java! {
    () = "V", ();
    jboolean = "Z", false;
    jint = "I", 0;
    jlong = "J", 0;
    jfloat = "F", 0.0;
    jdouble = "D", 0.0;
}

/// Declares classes of objects.
macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident = $signature:literal;)*) => {$(
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy)]
        pub(crate) struct $name(pub(crate) jobject);
        java! { $name = $signature, $name(std::ptr::null_mut()); }
    )*};
}
objects! {
    /// `byte[]`
    ByteArray = "[B";
    /// `short[]`
    ShortArray = "[S";
    /// `int[]`
    IntArray = "[I";
    /// `long[]`
    LongArray = "[J";
    /// `float[]`
    FloatArray = "[F";
    /// `java.nio.ByteBuffer`
    ByteBuffer = "Ljava/nio/ByteBuffer;";
    /// `dev.bolmo.Native.Progress`
    ProgressObject = "Ldev/bolmo/Native$Progress;";
    /// `dev.bolmo.Native.Pieces`
    PiecesObject = "Ldev/bolmo/Native$Pieces;";
    /// `dev.bolmo.Native.Metrics`
    MetricsObject = "Ldev/bolmo/Native$Metrics;";
    /// `dev.bolmo.Native.Reader`
    ReaderObject = "Ldev/bolmo/Native$Reader;";
    /// `java.lang.String`
    StringObject = "Ljava/lang/String;";
    /// `dev.bolmo.Native.Log`
    LogObject = "Ldev/bolmo/Native$Log;";
}

/// A copy of a Java array, or `null`.
pub(crate) struct Items<T>(Option<Vec<T>>);

impl<T> Items<T> {
    /// The address of the items; NULL for `null`.
    pub(crate) fn pointer(&self) -> *const T {
        self.0.as_ref().map_or(std::ptr::null(), |items| items.as_ptr())
    }

    /// Number of items; 0 for `null`.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, Vec::len)
    }
}

/// Declares how arrays are copied from Java: the array, the item in Java and in Rust, and the function of JNI.
macro_rules! arrays_from_java {
    ($($array:ident $java:ident $item:ident $read:ident: $get:ident;)*) => {
        impl Env {$(
            /// Copies an array from Java.
            pub(crate) fn $read(self, array: $array) -> Result<Items<$item>> {
                if array.0.is_null() {
                    return Ok(Items(None));
                }
                let size = jni!(self, v1_1, GetArrayLength, array.0);
                let mut items = vec![$item::default(); size as usize];
                jni!(self, v1_1, $get, array.0, 0, size, items.as_mut_ptr().cast::<$java>());
                self.check()?;
                Ok(Items(Some(items)))
            }
        )*}
    };
}
arrays_from_java! {
    ByteArray jbyte u8 bytes: GetByteArrayRegion;
    IntArray jint u32 ints: GetIntArrayRegion;
    FloatArray jfloat f32 floats: GetFloatArrayRegion;
}

/// The same to Java.
macro_rules! arrays_to_java {
    ($($array:ident $java:ident $item:ident $make:ident: $new:ident $set:ident;)*) => {
        impl Env {$(
            /// Creates an array in Java.
            pub(crate) fn $make(self, items: &[$item]) -> Result<$array> {
                let size = size_in_java(items.len())?;
                let array = jni!(self, v1_1, $new, size);
                self.check()?;
                jni!(self, v1_1, $set, array, 0, size, items.as_ptr().cast::<$java>());
                Ok($array(array))
            }
        )*}
    };
}
arrays_to_java! {
    ByteArray jbyte u8 byte_array: NewByteArray SetByteArrayRegion;
    ShortArray jshort u16 short_array: NewShortArray SetShortArrayRegion;
    LongArray jlong i64 long_array: NewLongArray SetLongArrayRegion;
    FloatArray jfloat f32 float_array: NewFloatArray SetFloatArrayRegion;
}

/// A size as Java has it.
fn size_in_java(size: usize) -> Result<jint> {
    jint::try_from(size)
        .map_err(|_| Failure::Argument(format!("{size} items are more than an array of the JVM can hold")))
}

/// A size from Java.
pub(crate) fn size(value: jlong, name: &str) -> Result<usize> {
    usize::try_from(value).map_err(|_| Failure::Argument(format!("{name}: must not be negative, found {value}")))
}

/// The handle behind a `long`.
pub(crate) fn at<T>(handle: jlong) -> *mut T {
    std::ptr::without_provenance_mut(handle as usize)
}

/// The bytes of a range of an ABI call's result.
///
/// # Safety
/// `data` is valid for reads of `size` items, which don't change while the slice is used, or `size` is 0.
pub(crate) unsafe fn slice<'a, T>(data: *const T, size: usize) -> &'a [T] {
    if size == 0 || data.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(data, size) }
}

/// A reference that ends with its scope instead of the native method.
pub(crate) struct Local(Env, pub(crate) jobject);

impl Drop for Local {
    fn drop(&mut self) {
        jni!(self.0, v1_2, DeleteLocalRef, self.1);
    }
}

impl Env {
    /// # Safety
    /// `env` is the current thread's.
    pub(crate) unsafe fn new(env: *mut JNIEnv) -> Self {
        Self(env)
    }

    /// `Pending` if an exception is pending.
    pub(crate) fn check(self) -> Result<()> {
        if jni!(self, v1_2, ExceptionCheck) { Err(Failure::Pending) } else { Ok(()) }
    }

    /// Ends a reference with the scope of the result.
    pub(crate) fn local(self, object: jobject) -> Local {
        Local(self, object)
    }

    /// Creates a string.
    pub(crate) fn string(self, text: &str) -> Result<jobject> {
        let units: Vec<u16> = text.encode_utf16().collect();
        let string = jni!(self, v1_1, NewString, units.as_ptr(), size_in_java(units.len())?);
        self.check()?;
        Ok(string)
    }

    /// Address and size of a direct buffer.
    pub(crate) fn direct(self, buffer: ByteBuffer) -> Result<(*const u8, usize)> {
        let address = jni!(self, v1_4, GetDirectBufferAddress, buffer.0);
        let size = jni!(self, v1_4, GetDirectBufferCapacity, buffer.0);
        match usize::try_from(size) {
            Ok(size) if !address.is_null() => Ok((address.cast(), size)),
            _ => Err(Failure::Argument("expected a direct buffer".to_owned())),
        }
    }

    /// Calls a method that returns a boolean.
    pub(crate) fn call_boolean(self, object: jobject, method: jmethodID, arguments: &[jvalue]) -> Result<bool> {
        let result = jni!(self, v1_1, CallBooleanMethodA, object, method, arguments.as_ptr());
        self.check()?;
        Ok(result)
    }

    /// Calls a method that returns an int.
    pub(crate) fn call_int(self, object: jobject, method: jmethodID, arguments: &[jvalue]) -> Result<jint> {
        let result = jni!(self, v1_1, CallIntMethodA, object, method, arguments.as_ptr());
        self.check()?;
        Ok(result)
    }

    /// Calls a method that returns nothing.
    pub(crate) fn call_void(self, object: jobject, method: jmethodID, arguments: &[jvalue]) -> Result<()> {
        jni!(self, v1_1, CallVoidMethodA, object, method, arguments.as_ptr());
        self.check()
    }

    /// Copies the first bytes of an array.
    pub(crate) fn copy(self, array: ByteArray, to: &mut [u8]) -> Result<()> {
        jni!(self, v1_1, GetByteArrayRegion, array.0, 0, size_in_java(to.len())?, to.as_mut_ptr().cast::<jbyte>());
        self.check()
    }

    /// Takes the pending exception, or null.
    pub(crate) fn take_exception(self) -> jthrowable {
        let exception = jni!(self, v1_1, ExceptionOccurred);
        if !exception.is_null() {
            jni!(self, v1_1, ExceptionClear);
        }
        exception
    }

    /// Makes an exception that was taken pending again.
    pub(crate) fn throw_again(self, exception: jthrowable) {
        jni!(self, v1_1, Throw, exception);
    }

    /// Makes the exception of a failure pending.
    pub(crate) fn throw(self, failure: Failure) {
        let (status, message) = match &failure {
            Failure::Pending => return,
            Failure::Status(status) => {
                // SAFETY: the message ends with a NUL, and is valid until this thread's next failing call.
                let message = unsafe { CStr::from_ptr(bolmo_last_error_message()) };
                (*status as i32, message.to_bytes())
            }
            Failure::Argument(message) => (bolmo_status::BOLMO_INVALID_ARGUMENT as i32, message.as_bytes()),
            Failure::Busy(message) => (bolmo_status::BOLMO_BUSY as i32, message.as_bytes()),
            Failure::Bug(message) => (bolmo_status::BOLMO_INTERNAL as i32, message.as_bytes()),
        };
        // Without memory for the message, an OutOfMemoryError is pending instead.
        let (Ok(ids), Ok(message)) = (ids(), self.byte_array(message)) else { return };
        let arguments = [jvalue { i: status }, jvalue { l: message.0 }];
        let exception = jni!(self, v1_1, CallStaticObjectMethodA, ids.native, ids.exception, arguments.as_ptr());
        if self.check().is_ok() {
            self.throw_again(exception);
        }
    }
}

/// A reference that lasts until it is dropped, on any thread.
pub(crate) struct Global(jobject);

// SAFETY: a global reference may be used by any thread, and by several.
unsafe impl Send for Global {}
// SAFETY: as above.
unsafe impl Sync for Global {}

impl Global {
    /// Creates another reference to an object.
    pub(crate) fn new(env: Env, object: jobject) -> Result<Self> {
        let reference = jni!(env, v1_1, NewGlobalRef, object);
        if reference.is_null() { Err(Failure::Bug("no memory for a global reference")) } else { Ok(Self(reference)) }
    }

    /// The object.
    pub(crate) fn get(&self) -> jobject {
        self.0
    }
}

impl Drop for Global {
    fn drop(&mut self) {
        let _ = with_env(|env| {
            jni!(env, v1_1, DeleteGlobalRef, self.0);
            Ok(())
        });
    }
}

/// Runs `work` with the environment of this thread, which the Java VM may not know yet.
pub(crate) fn with_env<T>(work: impl FnOnce(Env) -> Result<T>) -> Result<T> {
    let vm = ids()?.vm;
    let mut env: *mut std::ffi::c_void = std::ptr::null_mut();
    // SAFETY: the Java VM outlives this library, and `env` can be written.
    let found = unsafe { ((**vm).v1_2.GetEnv)(vm, &mut env, JNI_VERSION_1_6) };
    let attached = found == JNI_EDETACHED;
    if attached {
        // SAFETY: as above. As a daemon, the thread does not keep the VM from ending.
        let status = unsafe { ((**vm).v1_4.AttachCurrentThreadAsDaemon)(vm, &mut env, std::ptr::null_mut()) };
        if status != JNI_OK {
            return Err(Failure::Bug("the Java VM rejects this thread"));
        }
    } else if found != JNI_OK {
        return Err(Failure::Bug("the Java VM is too old"));
    }
    let result = work(Env(env.cast()));
    if attached {
        // A thread may not end while it is attached.
        // SAFETY: as above; no reference of the thread is used after this.
        unsafe { ((**vm).v1_1.DetachCurrentThread)(vm) };
    }
    result
}

/// Looks up everything that is called by name.
pub(crate) fn look_up(vm: *mut JavaVM, env: Env) -> Result<()> {
    let find = |name: &CStr| {
        let class = jni!(env, v1_1, FindClass, name.as_ptr());
        env.check().map(|()| env.local(class))
    };
    let method = |class: &CStr, name: &CStr, signature: &CStr| {
        let class = find(class)?;
        let id = jni!(env, v1_1, GetMethodID, class.1, name.as_ptr(), signature.as_ptr());
        env.check().map(|()| id)
    };
    let native = find(c"dev/bolmo/Native")?;
    let signature = c"(I[B)Ldev/bolmo/BolmoException;";
    let exception = jni!(env, v1_1, GetStaticMethodID, native.1, c"exception".as_ptr(), signature.as_ptr());
    env.check()?;
    let ids = Ids {
        vm,
        // The class stays for as long as the library.
        native: std::mem::ManuallyDrop::new(Global::new(env, native.1)?).get(),
        exception,
        progress: method(c"dev/bolmo/Native$Progress", c"progress", c"(JJ)Z")?,
        piece: method(c"dev/bolmo/Native$Pieces", c"piece", c"(J[B[SLjava/lang/String;)Z")?,
        metrics: method(c"dev/bolmo/Native$Metrics", c"metrics", c"([B)Z")?,
        read: method(c"dev/bolmo/Native$Reader", c"read", c"(J[B)I")?,
        log: method(c"dev/bolmo/Native$Log", c"log", c"(I[B)V")?,
    };
    // A library is loaded once; a second time would find the same.
    let _ = IDS.set(ids);
    Ok(())
}

/// The class of the native methods.
pub(crate) fn native_class() -> Result<jclass> {
    ids().map(|ids| ids.native)
}

/// Declares `methods` of `class` as native.
pub(crate) fn register(env: Env, class: jclass, methods: &[jni_sys::JNINativeMethod]) -> Result<()> {
    let status = jni!(env, v1_1, RegisterNatives, class, methods.as_ptr(), size_in_java(methods.len())?);
    env.check()?;
    if status == JNI_OK { Ok(()) } else { Err(Failure::Bug("RegisterNatives failed")) }
}

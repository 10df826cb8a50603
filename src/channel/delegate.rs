//! [`delegate`]: methods that pass a call on to a part of their type.

/// Writes public methods that call the method of the same name of another type. Their documentation names that method.
///
/// The list has the whole signatures, so a file shows its interface. A line of documentation above one continues the
/// sentence that names the other method. `await` before the type makes methods that await.
macro_rules! delegate {
    ($target:ident: $part:expr; $(
        $(#[$attr:meta])*
        pub fn $name:ident $(<$life:lifetime>)? ($(&$mut:tt)? $this:ident $(, $arg:ident: $type:ty)*) -> $result:ty;
    )*) => {$(
        #[doc = concat!("See [`", stringify!($target), "::", stringify!($name), "`].")]
        $(#[$attr])*
        ///
        /// # Errors
        #[doc = concat!("Those of [`", stringify!($target), "::", stringify!($name), "`].")]
        #[inline]
        pub fn $name $(<$life>)? ($(&$mut)? $this $(, $arg: $type)*) -> $result {
            $part.$name($($arg),*)
        }
    )*};
    (await $target:ident: $part:expr; $(
        pub async fn $name:ident $(<$life:lifetime>)? ($(&$mut:tt)? $this:ident $(, $arg:ident: $type:ty)*) -> $result:ty;
    )*) => {$(
        #[doc = concat!("See [`", stringify!($target), "::", stringify!($name), "`].")]
        ///
        /// # Errors
        #[doc = concat!("Those of [`", stringify!($target), "::", stringify!($name), "`].")]
        #[inline]
        pub async fn $name $(<$life>)? ($(&$mut)? $this $(, $arg: $type)*) -> $result {
            $part.$name($($arg),*).await
        }
    )*};
}

pub(crate) use delegate;

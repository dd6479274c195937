//! Constant database files: bounds-checked reader and durable writer.

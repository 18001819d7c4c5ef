"""Raw files to cases, cases to a prepared store, folds, augmentation and batches."""

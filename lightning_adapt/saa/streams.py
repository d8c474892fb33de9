"""Numbers of the streams of random numbers, so that no two uses of a seed share one."""

WEAK_LABELED, WEAK = 0, 1  # flip and crop of the labelled, and of the unlabelled weak views
STRONG, STRONG_AGAIN, STRONG_GEOMETRY = 2, 3, 4  # first and second RandAugment; flip and crop of the composed view
ORIENTATION, OWN_ORIENTATION = 5, 6  # of regrouped views: of our DataModule, of `regroup` on the callback
LABELED_ORDER, UNLABELED_ORDER, LABELED_ROWS = 7, 8, 9  # draws of the two sets, and which images are labelled

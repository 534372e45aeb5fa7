/**
 * What is measured of contributions: counts, sums, distinct values and histograms, each exact after any number of corrections.
 *
 * @since 0.1.0
 */

/**
 * A measure.
 *
 * @category models
 * @since 0.1.0
 */
export type Measure = Count | Sum | Distinct | Histogram

/**
 * How many contributions there are of which the value is `true` or left out.
 *
 * @category models
 * @since 0.1.0
 */
export interface Count {
  readonly _tag: "Count"
}

/**
 * The sum of whole numbers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sum {
  readonly _tag: "Sum"
}

/**
 * How many different texts there are; each is kept with the number of contributions that have it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Distinct {
  readonly _tag: "Distinct"
}

/**
 * How many numbers there are in each bucket. Bucket 0 holds those up to the first bound, bucket n those above bound n - 1 up to
 * bound n, and the last one all above the last bound.
 *
 * @category models
 * @since 0.1.0
 */
export interface Histogram {
  readonly _tag: "Histogram"
  readonly bounds: ReadonlyArray<number>
}

/**
 * A column of the table, `bigint`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const count: Count = { _tag: "Count" }

/**
 * A column of the table, `numeric`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const sum: Sum = { _tag: "Sum" }

/**
 * A column of the table, `bigint`; and the table `<table>_<measure>` with the dimensions, `value` and `refs`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const distinct: Distinct = { _tag: "Distinct" }

/**
 * The table `<table>_<measure>` with the dimensions, `bucket` and `refs`. Bounds ascend.
 *
 * @category constructors
 * @since 0.1.0
 */
export const histogram = (bounds: ReadonlyArray<number>): Histogram => {
  if (bounds.length === 0 || bounds.some((bound, index) => index > 0 && bound <= bounds[index - 1]!)) {
    throw new RangeError("The bounds of a histogram ascend, and there is one at least")
  }
  return { _tag: "Histogram", bounds }
}

/**
 * The bucket of a value.
 *
 * @category getters
 * @since 0.1.0
 */
export const bucketOf = ({ bounds }: Histogram, value: number): number => {
  let low = 0
  let high = bounds.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (value <= bounds[middle]!) high = middle
    else low = middle + 1
  }
  return low
}

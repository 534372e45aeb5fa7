import * as Shop from "./shop.ts"

Shop.open(Shop.askSupplier)

package verbs

// name is what a user calls this provider.
const name = "verbs"

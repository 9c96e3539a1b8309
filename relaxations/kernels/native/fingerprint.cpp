// Which sources this library was built from (see build.py).

extern "C" const char* verif_fingerprint() { return VERIF_FINGERPRINT; }

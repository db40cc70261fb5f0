package android.provider;

import android.net.Uri;

/** A stand-in for the class of Android, with what the examples use. */
public final class DocumentsContract {
    private DocumentsContract() {}

    public static String getTreeDocumentId(Uri tree) {
        return tree.toString().replaceFirst(".*/tree/", "");
    }

    public static Uri buildChildDocumentsUriUsingTree(Uri tree, String document) {
        return Uri.parse(tree + "/document/" + document + "/children");
    }

    public static Uri buildDocumentUriUsingTree(Uri tree, String document) {
        return Uri.parse(tree + "/document/" + document);
    }

    /** A stand-in for the class of Android, with what the examples use. */
    public static final class Document {
        public static final String COLUMN_DOCUMENT_ID = "document_id";
        public static final String COLUMN_DISPLAY_NAME = "_display_name";

        private Document() {}
    }
}
